//go:build !linux

package file

import (
	"path/filepath"
	"sync"

	"github.com/fsnotify/fsnotify"
)

// A notifier is the system's counterpart of inotify.
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

// add asks for notices of the directory now at path. Each add needs one remove.
func (n *notifier) add(path string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	_ = n.watcher.Remove(path) // of an earlier directory at path
	if err := n.watcher.Add(path); err != nil {
		return err
	}
	n.uses[path]++
	return nil
}

// remove undoes one add.
func (n *notifier) remove(path string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.uses[path]--; n.uses[path] <= 0 {
		delete(n.uses, path)
		_ = n.watcher.Remove(path)
	}
}

// run passes notices to heed until the notifier is closed.
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
				heed(notice{dir: event.Name}) // it may be a watched directory itself
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
