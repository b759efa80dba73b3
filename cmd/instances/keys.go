package instances

import (
	"io"
	"os"
	"sync"

	"github.com/muesli/cancelreader"
	xterm "golang.org/x/term"

	"github.com/request-migration/migrate/cmd/internal/term"
)

// readKeys reads single keys from in, if it is a terminal; if not, there are
// none. release ends that and gives the terminal back as it was.
func readKeys(in io.Reader) (keys <-chan byte, release func(), err error) {
	terminal := term.Of(in)
	if terminal == nil {
		return nil, func() {}, nil
	}
	reader, err := cancelreader.NewReader(terminal)
	if err != nil {
		return nil, nil, err
	}
	before, err := xterm.MakeRaw(int(terminal.Fd()))
	if err != nil {
		_ = reader.Close() // of no use without
		return nil, nil, err
	}
	typed, done := make(chan byte), make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		buf := make([]byte, 64)
		for {
			n, err := reader.Read(buf)
			if err != nil {
				return // cancelled, or the terminal is gone: drawing will tell
			}
			for _, key := range buf[:n] {
				select {
				case typed <- key:
				case <-done:
					return
				}
			}
		}
	})
	return typed, func() {
		close(done)
		if reader.Cancel() { // where it can't be, it would wait for a key
			reading.Wait()
		}
		restore(terminal, before)
		_ = reader.Close() // it is its own, not the terminal
	}, nil
}

// restore gives a terminal back. If that fails it is gone.
func restore(terminal *os.File, before *xterm.State) {
	_ = xterm.Restore(int(terminal.Fd()), before)
}
