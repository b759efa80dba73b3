package request

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/request-migration/migrate/cmd/internal/term"
)

// progressInterval is the interval between updates: as often as a person can read them.
const progressInterval = 100 * time.Millisecond

// progress says on a terminal how many requests of a load are over. The nil pointer says
// nothing. It is safe for concurrent use.
type progress struct {
	terminal *os.File
	count    int
	began    time.Time

	mu    sync.Mutex
	over  int
	shown time.Time
}

// newProgress returns the progress of count requests on a terminal, nil elsewhere.
func newProgress(w io.Writer, count int) *progress {
	terminal := term.Of(w)
	if terminal == nil {
		return nil
	}
	return &progress{terminal: terminal, count: count, began: time.Now()}
}

// add notes that a request is over.
func (p *progress) add() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over++
	now := time.Now()
	if now.Sub(p.shown) < progressInterval {
		return
	}
	p.shown = now
	rate := float64(p.over) / now.Sub(p.began).Seconds()
	line := fmt.Sprintf("%3d %%  %d of %d requests, %.0f a second", 100*p.over/p.count, p.over, p.count, rate)
	if width := term.Width(p.terminal); width > 0 {
		line = ansi.Truncate(line, width-1, "")
	}
	_, _ = p.terminal.WriteString("\r" + line + ansi.EraseLineRight) // only the line would be missing
}

// clear takes the line away.
func (p *progress) clear() {
	if p != nil {
		_, _ = p.terminal.WriteString("\r" + ansi.EraseLineRight)
	}
}
