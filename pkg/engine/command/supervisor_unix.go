//go:build unix

package command

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// supervise is the supervisor's script: it notes the groups that begin and end,
// and when its input ends, as the server has, it kills those that are left and
// removes the server's temporary directory.
const supervise = `trap '' HUP INT QUIT TERM
groups=' '
while read -r what group; do
	case $what in
	+) groups="$groups$group " ;;
	-) groups="${groups%% $group *} ${groups#* $group }" ;;
	esac
done
for group in $groups; do kill -KILL "-$group" 2>/dev/null; done
[ -z "$1" ] || rm -rf -- "$1"`

// supervisor is a shell that ends the groups of programs if this process cannot:
// it was killed. It is started anew when it was killed itself. It is safe for
// concurrent use.
type supervisor struct {
	log *slog.Logger
	dir string // to remove; may be ""

	mu     sync.Mutex
	groups []int     // that run
	shell  *exec.Cmd // nil if there is none
	in     *os.File  // what the shell reads
}

func newSupervisor(log *slog.Logger, dir string) *supervisor {
	s := &supervisor{log: log, dir: dir}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.start()
	return s
}

// began notes a group that has begun.
func (s *supervisor) began(group int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.groups = append(s.groups, group)
	s.tell(fmt.Sprintf("+ %d\n", group))
}

// ended notes a group that has ended.
func (s *supervisor) ended(group int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.groups = slices.DeleteFunc(s.groups, func(g int) bool { return g == group })
	s.tell(fmt.Sprintf("- %d\n", group))
}

// close ends the shell.
func (s *supervisor) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop()
}

// tell writes a line to the shell. The caller holds mu.
func (s *supervisor) tell(line string) {
	if s.shell == nil {
		return
	}
	if err := write(s.in, line); err != nil {
		s.stop()
		s.start()
	}
}

// write writes to a shell, which reads at once unless somebody has stopped it.
func write(in *os.File, text string) error {
	if err := in.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	_, err := in.WriteString(text)
	return err
}

// start starts the shell, and tells it which groups there are. The caller holds
// mu.
func (s *supervisor) start() {
	theirs, ours, err := os.Pipe()
	if err != nil {
		s.missing(err)
		return
	}
	defer closeFiles(theirs)
	s.in = ours
	s.shell = &exec.Cmd{
		Path: "/bin/sh", Args: []string{"sh", "-c", supervise, "sh", s.dir}, Env: []string{"PATH=/usr/bin:/bin"}, Dir: "/", Stdin: theirs,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true}, // what ends our group does not end it
	}
	if err := s.shell.Start(); err != nil {
		closeFiles(ours)
		s.shell = nil
		s.missing(err)
		return
	}
	var groups strings.Builder
	for _, g := range s.groups {
		fmt.Fprintf(&groups, "+ %d\n", g)
	}
	if err := write(ours, groups.String()); err != nil {
		s.stop()
		s.missing(err)
	}
}

// missing warns that there is no supervisor.
func (s *supervisor) missing(err error) {
	s.log.Warn("No supervisor for programs: if this server is killed with SIGKILL, what they have started outlives it", "err", fmt.Errorf("starting /bin/sh: %w", err))
}

// stop ends the shell at once. The caller holds mu.
func (s *supervisor) stop() {
	if s.shell == nil {
		return
	}
	_ = s.shell.Process.Kill() // before its input ends, at which it would kill groups
	_ = s.shell.Wait()
	closeFiles(s.in)
	s.shell = nil
}
