package instances

import (
	"sync"

	"github.com/spf13/cobra"

	"github.com/request-migration/migrate/cmd/internal/term"
)

// maxHeldLog bounds what is held of the log, in bytes.
const maxHeldLog = 64 << 10

// holdLog keeps what cmd logs to a terminal off it, while a live table is
// there, and returns what prints it then.
func holdLog(cmd *cobra.Command) (release func()) {
	stderr := cmd.ErrOrStderr()
	if term.Of(stderr) == nil {
		return func() {}
	}
	var held heldLog
	cmd.SetErr(&held)
	return func() {
		cmd.SetErr(stderr)
		held.mu.Lock()
		defer held.mu.Unlock()
		_, _ = stderr.Write(held.text) // nothing can be done about it
	}
}

// heldLog holds the last of what is written to it. It is safe for concurrent use.
type heldLog struct {
	mu   sync.Mutex
	text []byte
}

// Write implements [io.Writer].
func (h *heldLog) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.text = append(h.text, p...)
	if extra := len(h.text) - maxHeldLog; extra > 0 {
		h.text = append(h.text[:0], h.text[extra:]...)
	}
	return len(p), nil
}
