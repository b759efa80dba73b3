package file

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestInotifyLimits checks that errors name the limit. The system's own text reads like
// a full disk.
func TestInotifyLimits(t *testing.T) {
	for err, want := range map[error]string{
		unix.ENOSPC: "fs.inotify.max_user_watches",
		unix.EMFILE: "fs.inotify.max_user_instances",
		unix.ENOENT: "",
	} {
		got := inotifyError(err)
		if !errors.Is(got, err) || !strings.Contains(got.Error(), want) || (want == "") != (got == err) { //nolint:errorlint // the very same
			t.Errorf("%v reads %q, want it to name %q", err, got, want)
		}
	}
}
