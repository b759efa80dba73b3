//go:build !unix

package instances

import "os"

// notifyResize yields nothing on this system: each frame looks at the size.
func notifyResize() (resized <-chan os.Signal, stop func()) {
	return nil, func() {}
}
