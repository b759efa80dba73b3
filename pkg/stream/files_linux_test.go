package stream_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// filesEnv makes TestFewFilesServer serve in the process that TestFewFiles starts.
const filesEnv = "STREAM_TEST_FILES"

func TestFewFilesServer(t *testing.T) {
	if os.Getenv(filesEnv) == "" {
		return // it is TestFewFiles that tests
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: 64}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(l.Addr()) //nolint:forbidigo // for the process that runs this one
	t.Fatal(echo("server1").Serve(l))
}

// Idle connections do not keep others from a server that may open 64 files.
func TestFewFiles(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFewFilesServer$")
	cmd.Env = append(os.Environ(), filesEnv+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // killed, as was meant
	})
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		p := dialPeer(t, strings.TrimSpace(addr)) // it stays open
		p.say(`{"data":"hi"}`)
		p.expect(hi()...)
	}
}
