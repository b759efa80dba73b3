//go:build unix

package cmd_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"
)

func scriptAddress(ts *testscript.TestScript, args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.1:0", 1+rand.IntN(254), rand.IntN(256)))
	if err != nil {
		return err
	}
	ts.Setenv(args[0], l.Addr().String())
	return l.Close()
}

func scriptOccupy(ts *testscript.TestScript, args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	ts.Defer(func() { l.Close() })
	ts.Setenv(args[0], l.Addr().String())
	return nil
}

func scriptRemember(ts *testscript.TestScript, args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	tree, err := describe(ts.MkAbs(args[0]))
	if err != nil {
		return err
	}
	s := stateOf(ts)
	if s.trees == nil {
		s.trees = map[string]map[string]string{}
	}
	s.trees[args[0]] = tree
	return nil
}

// scriptUntouched lets new files pass: they are the store's own.
func scriptUntouched(ts *testscript.TestScript, args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	before := stateOf(ts).trees[args[0]]
	if len(before) == 0 {
		return errors.New("nothing is remembered")
	}
	now, err := describe(ts.MkAbs(args[0]))
	if err != nil {
		return err
	}
	for name, was := range before {
		if is := now[name]; is != was {
			return fmt.Errorf("%s was %s, is %s", name, was, is)
		}
	}
	return nil
}

// describe returns the properties of every file below dir, by name. A directory's time of
// change is left out, since it is that of its files.
func describe(dir string) (map[string]string, error) {
	tree := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := info.Mode().String()
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			text += " to " + target
		case info.Mode().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %v %d %x", info.ModTime(), info.Size(), content[:min(len(content), 200)])
		}
		tree[path] = text
		return nil
	})
	return tree, err
}
