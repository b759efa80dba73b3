package command

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/request-migration/migrate/pkg/stream"
)

// prefixes is where the files of MIGRATE_PREFIX are: a directory that only this
// user can read. The zero value has none.
type prefixes struct{ dir string }

// newPrefixes makes a directory for an engine whose program resumes by prefix.
func newPrefixes(by ResumeBy) (prefixes, error) {
	if by != ResumePrefix {
		return prefixes{}, nil
	}
	dir, err := os.MkdirTemp("", "migrate-command-")
	if err == nil {
		dir, err = filepath.Abs(dir) // the program may run elsewhere
	}
	if err != nil {
		return prefixes{}, fmt.Errorf("making a directory for MIGRATE_PREFIX: %w", err)
	}
	return prefixes{dir}, nil
}

// file writes the items so far to a file, as the program wrote them, and returns
// its name: "" if there are none.
func (p prefixes) file(items Items, prefix []stream.Annotated) (name string, err error) {
	if len(prefix) == 0 {
		return "", nil
	}
	f, err := os.CreateTemp(p.dir, "prefix-")
	if errors.Is(err, fs.ErrNotExist) { // cleaned up, as old directories are
		if err = os.Mkdir(p.dir, 0o700); err == nil {
			f, err = os.CreateTemp(p.dir, "prefix-")
		}
	}
	if err == nil {
		err = errors.Join(writeItems(f, items, prefix), f.Close())
	}
	if err == nil {
		return f.Name(), nil
	}
	if f != nil {
		p.remove(f.Name())
	}
	if errors.Is(err, stream.ErrUnresumable) {
		return "", err
	}
	return "", &ending{stream.ErrOverloaded, fmt.Sprintf("writing the file of MIGRATE_PREFIX: %v", err)}
}

// remove removes a file, if there is one.
func (p prefixes) remove(name string) {
	if name != "" {
		_ = os.Remove(name) // close removes them all
	}
}

// close removes the directory.
func (p prefixes) close() {
	if p.dir != "" {
		_ = os.RemoveAll(p.dir) // it holds nothing that anybody needs
	}
}

// writeItems writes items as the program wrote them.
func writeItems(f *os.File, items Items, prefix []stream.Annotated) error {
	w := bufio.NewWriterSize(f, readSize)
	for i, a := range prefix {
		var err error
		if items == JSON && a.Event == "" {
			_, err = w.Write(append(slices.Clip(a.Data), '\n'))
		} else if text, ok := a.Content(); ok {
			_, err = w.WriteString(text)
		} else {
			return &ending{stream.ErrUnresumable, fmt.Sprintf("cannot go on behind item %d: this command's items are %s", i, items)}
		}
		if err != nil {
			return err
		}
	}
	return w.Flush()
}
