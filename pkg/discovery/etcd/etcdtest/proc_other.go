//go:build !unix

package etcdtest

import (
	"errors"
	"os"
)

// Freeze is not possible here.
func Freeze(*os.Process) error { return errors.ErrUnsupported }

// Thaw is not possible here.
func Thaw(*os.Process) error { return errors.ErrUnsupported }

// lock does nothing here: two builds at the same time only cost time.
func lock(string) (unlock func(), err error) { return func() {}, nil }
