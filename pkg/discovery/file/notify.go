package file

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// A notice is what the system tells of a directory that it was asked about.
type notice struct {
	dir  string
	name string // in dir; empty if dir itself is gone or moved
	lost bool   // there were more notices than the system keeps; of all directories
}

// A notifier tells of files that come to directories and leave them, but not of
// those that change in place: touching is that, and would wake all that watch at
// every turn. Its platforms have openNotifier, add, remove and Close.

// hear returns the notifier, which it makes if there is none. Processes that
// don't watch have none: systems grant few to a user.
func (s *Store) hear() (*notifier, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.notifier != nil {
		return s.notifier, nil
	}
	n, err := openNotifier()
	if err != nil {
		return nil, err
	}
	s.notifier = n
	s.wg.Go(func() { n.run(s.heed) })
	return n, nil
}

// heed passes a notice on to the buckets that it concerns.
func (s *Store) heed(n notice) {
	if isTemp(n.name) {
		return
	}
	s.mu.Lock()
	buckets := slices.Collect(maps.Values(s.buckets))
	s.mu.Unlock() // a bucket's own lock comes before it
	for _, b := range buckets {
		b.heed(n)
	}
}

func isTemp(name string) bool { return strings.HasPrefix(name, tempPrefix) }

// foreign reports whether a name is of the kind that systems and programs leave
// in any directory, of which nobody needs to be warned.
func foreign(name string) bool {
	switch name {
	case "lost+found", "Thumbs.db", "desktop.ini":
		return true
	}
	return strings.HasPrefix(name, ".") // .nfs…, .DS_Store, ._…, .snapshot
}

// leadsTo reports whether name in the directory dir is on the way to path.
func leadsTo(dir, name, path string) bool {
	rest, err := filepath.Rel(dir, path)
	if err != nil {
		return false
	}
	first, _, _ := strings.Cut(rest, string(filepath.Separator))
	return first == name
}
