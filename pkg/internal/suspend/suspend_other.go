//go:build !unix

// Package suspend stops processes and lets them run again, for tests.
package suspend

import (
	"errors"
	"os"
)

// Freeze is not possible here.
func Freeze(*os.Process) error { return errors.ErrUnsupported }

// Thaw is not possible here.
func Thaw(*os.Process) error { return errors.ErrUnsupported }
