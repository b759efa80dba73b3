//go:build unix

package cmd_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// vigil tells when the last of the programs has ended that have opened its file,
// for which their script says `exec 9>NAME`.
type vigil struct {
	name string
	f    *os.File
}

func newVigil(t *testing.T) vigil {
	t.Helper()
	name := filepath.Join(t.TempDir(), "vigil")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return vigil{name, f}
}

// over waits until nobody has the file open.
func (v vigil) over(t *testing.T) {
	t.Helper()
	if err := v.f.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, v.f); err != nil {
		t.Fatalf("waiting for the end of all programs: %v", err)
	}
}

// TestKilledWithPrograms ends a server at once while its programs run, by a signal
// that nobody can catch and by a second one: the programs, their children, and the
// files that they were given are gone with it.
func TestKilledWithPrograms(t *testing.T) {
	t.Parallel()
	for name, signals := range map[string][]syscall.Signal{
		"killed":   {syscall.SIGKILL},
		"insisted": {syscall.SIGTERM, syscall.SIGINT},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			killWithPrograms(t, signals)
		})
	}
}

func killWithPrograms(t *testing.T, signals []syscall.Signal) {
	t.Helper()
	w := newWorld(t)
	v := newVigil(t)
	server := w.serve(t, "server1", "--max-streams", "0", "--resume-by", "prefix", "--",
		"sh", "-c", `exec 9>"$0"; trap "" TERM HUP; [ -z "$MIGRATE_PREFIX" ] || sleep 1000 & sleep 1000 | cat & echo started; wait`, v.name)
	address := w.address(t, "server1")
	client := &stream.Client{}
	defer client.Close()
	const requests = 20
	started := make(chan bool, requests)
	for range requests {
		go func() {
			req := stream.Request{Data: stream.String("x"), From: 1, Prefix: []stream.Annotated{{Data: stream.String("before\n")}}}
			for _, err := range client.Stream(t.Context(), address, req) {
				started <- err == nil
				if err != nil {
					return
				}
			}
		}()
	}
	deadline := time.After(patience)
	for range requests {
		select {
		case ok := <-started:
			if !ok {
				t.Fatal("a request failed")
			}
		case <-deadline:
			t.Fatalf("not all programs have started; the server says:\n%s", server.stderr)
		}
	}
	for _, sig := range signals {
		if err := server.signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	v.over(t)
	tmp := filepath.Join(w.dir, "tmp")
	for end := time.Now().Add(patience); ; time.Sleep(pollInterval) {
		left, err := filepath.Glob(filepath.Join(tmp, "migrate-command-*"))
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("after %v these are left: %q", patience, left)
		}
	}
}

// TestSlowReaderStopsProgram has a client stop reading: the program stops, and
// goes on when the client does.
func TestSlowReaderStopsProgram(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	// The program notes how far it has got. Of what it has written, pipe, server and
	// sockets hold some megabytes.
	const lines, length, held = 40_000, 1000, 16 << 20
	progress := filepath.Join(w.dir, "progress")
	w.serve(t, "server1", "--", "sh", "-c", `i=0; line=$(printf %0999d 0); while [ $i -lt 40000 ]; do
		echo $line; i=$((i+1)); [ $((i % 1000)) != 0 ] || echo $i >>`+progress+`; done`)
	conn, err := net.Dial("tcp", w.address(t, "server1"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, `{"data":"x"}`+"\n"); err != nil {
		t.Fatal(err)
	}
	// It has stopped when it makes no more progress.
	got := func() int {
		b, err := os.ReadFile(progress)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return strings.Count(string(b), "\n") * 1000
	}
	stopped := 0
	for same, end := 0, time.Now().Add(patience); same < 20; time.Sleep(pollInterval) {
		if n := got(); n > 0 && n == stopped {
			same++
		} else {
			stopped, same = n, 0
		}
		if time.Now().After(end) {
			t.Fatalf("the program has come to line %d and goes on, while nobody reads", stopped)
		}
	}
	if stopped*length > held {
		t.Errorf("it wrote %d lines of %d while nobody read", stopped, lines)
	}
	answer := bufio.NewScanner(conn)
	items := 0
	for answer.Scan() && !strings.HasPrefix(answer.Text(), `{"event":"end"`) {
		if strings.HasPrefix(answer.Text(), `{"data":"0`) {
			items++
		}
	}
	if want := fmt.Sprintf(`{"event":"end","id":"%d"}`, lines); items != lines || answer.Text() != want {
		t.Errorf("%d items came, and last %.80q, %v; want %s", items, answer.Text(), answer.Err(), want)
	}
}

// TestMemoryOfServer has a server pass 200 MB on, and looks at the most memory that
// it and its client ever took.
func TestMemoryOfServer(t *testing.T) {
	w := newWorld(t)
	server := w.serve(t, "server1", "--", "sh", "-c", "yes 'a line of text, as long as such lines are' | head -c 200000000")
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	client := w.startInto(t, nil, null, nil, "migrate", "request", "x", "--resume", "--output", "raw")
	w.ended(t, client, 0)
	if most := peak(t, server.cmd.Process.Pid); most > 64<<20 {
		t.Errorf("the server took up to %d MiB, want no more than 64", most>>20)
	}
	if usage, ok := client.cmd.ProcessState.SysUsage().(*syscall.Rusage); ok && usage.Maxrss > 96<<10 {
		t.Errorf("the client took up to %d MiB, want no more than 96", usage.Maxrss>>10)
	}
}

// peak returns the most memory that a process ever took, in bytes.
func peak(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if os.IsNotExist(err) {
		return 0 // not Linux
	}
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "\nVmHWM:")
	kb, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	n, err := strconv.Atoi(kb)
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}
