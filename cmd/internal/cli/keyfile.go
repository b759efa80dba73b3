package cli

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// KeyFile returns a function that returns the key in a file: its only line. The file is read
// again when it has changed, so that a key can be replaced while the program runs; a file
// that can't be read then leaves the last key standing. The function is safe for concurrent
// use.
func KeyFile(name string) (func() string, error) {
	f := keyFile{name: name}
	if err := f.read(); err != nil {
		return nil, err
	}
	return f.get, nil
}

type keyFile struct {
	name string

	mu      sync.Mutex
	key     string
	changed time.Time
	size    int64
}

func (f *keyFile) get() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if info, err := os.Stat(f.name); err == nil && (!info.ModTime().Equal(f.changed) || info.Size() != f.size) {
		_ = f.read() // half written: the last key stands
	}
	return f.key
}

func (f *keyFile) read() error {
	info, err := os.Stat(f.name)
	if err != nil {
		return err
	}
	content, err := os.ReadFile(f.name)
	if err != nil {
		return err
	}
	key := strings.TrimSpace(string(content))
	switch {
	case key == "":
		return fmt.Errorf("%s is empty: want a file with the key as its only line", f.name)
	case strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }):
		return fmt.Errorf("%s has more than a key: want a file with the key as its only line", f.name)
	}
	f.key, f.changed, f.size = key, info.ModTime(), info.Size()
	return nil
}
