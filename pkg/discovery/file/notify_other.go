//go:build !linux

package file

import (
	"path/filepath"
	"sync"

	"github.com/fsnotify/fsnotify"
)

// A notifier is what the system has in place of inotify.
type notifier struct {
	watcher *fsnotify.Watcher

	mu   sync.Mutex // guards uses
	uses map[string]int
}

func openNotifier() (*notifier, error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	return &notifier{watcher: watcher, uses: make(map[string]int)}, nil
}

// add asks for notices of the directory that path is now. Each needs a remove.
func (n *notifier) add(path string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	_ = n.watcher.Remove(path) // of a directory that was there before
	if err := n.watcher.Add(path); err != nil {
		return err
	}
	n.uses[path]++
	return nil
}

// remove ends the use of one add.
func (n *notifier) remove(path string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.uses[path]--; n.uses[path] <= 0 {
		delete(n.uses, path)
		_ = n.watcher.Remove(path)
	}
}

// run passes notices on until the notifier is closed.
func (n *notifier) run(heed func(notice)) {
	for {
		select {
		case event, ok := <-n.watcher.Events:
			if !ok {
				return
			}
			if event.Has(fsnotify.Create) || event.Has(fsnotify.Remove) || event.Has(fsnotify.Rename) {
				dir, name := filepath.Split(event.Name)
				heed(notice{dir: filepath.Clean(dir), name: name})
				heed(notice{dir: event.Name}) // should it be a directory itself
			}
		case _, ok := <-n.watcher.Errors:
			if !ok {
				return
			}
			heed(notice{lost: true})
		}
	}
}

// Close ends run.
func (n *notifier) Close() error { return n.watcher.Close() }
