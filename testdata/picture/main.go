// Command picture draws docs/instances.svg: what `migrate instances` shows on a
// terminal while one of two servers is down. Run it with `make picture`.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/creack/pty"
)

func main() {
	out := flag.String("o", "docs/instances.svg", "file to write")
	flag.Parse()
	dir, err := os.MkdirTemp("", "picture")
	if err == nil {
		var screen string
		screen, err = run(dir)
		if err == nil {
			err = os.WriteFile(*out, draw("migrate instances", anonymous(screen)), 0o644)
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

// columns is wide enough for everything that there is to show.
const columns = 140

// run breaks a stream on one of two servers and returns what a terminal then
// gets to see.
func run(dir string) (screen string, err error) {
	migrate := filepath.Join(dir, "migrate")
	if out, err := exec.Command("go", "build", "-o", migrate, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("building migrate: %w\n%s", err, out)
	}
	env := append(os.Environ(), "DYN_STORE_KV=file", "DYN_FILE_KV="+filepath.Join(dir, "kv"), "TERM=xterm-256color", "NO_COLOR=", "CI=")
	command := func(args ...string) *exec.Cmd {
		c := exec.Command(migrate, args...)
		c.Env = env
		return c
	}
	for name, mode := range map[string]string{"server1": "always", "server2": "never"} {
		server := command("serve", "--name", name, "--failure-mode", mode)
		log, err := server.StderrPipe()
		if err != nil {
			return "", err
		}
		if err := server.Start(); err != nil {
			return "", err
		}
		defer func() { _ = errors.Join(server.Process.Signal(os.Interrupt), server.Wait()) }()
		// Its first line says that it is registered.
		if _, err := log.Read(make([]byte, 1)); err != nil {
			return "", fmt.Errorf("starting %s: %w", name, err)
		}
		go func() { _, _ = io.Copy(io.Discard, log) }()
	}
	if out, err := command("request", "hello", "--instance", "server1").CombinedOutput(); err != nil {
		return "", fmt.Errorf("making a request: %w\n%s", err, out)
	}
	time.Sleep(1500 * time.Millisecond) // so that there is a time to show
	terminal, err := pty.StartWithSize(command("instances"), &pty.Winsize{Rows: 10, Cols: columns})
	if err != nil {
		return "", err
	}
	defer terminal.Close()
	var b bytes.Buffer
	_, _ = io.Copy(&b, terminal) // a terminal ends with an error
	if !strings.Contains(b.String(), "failed") {
		return "", fmt.Errorf("server1 is not down:\n%s", b.String())
	}
	return b.String(), nil
}

// anonymous puts another name in place of this machine's, and keeps the columns.
func anonymous(screen string) string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		return screen
	}
	const other = "laptop"
	row, head := strings.Repeat(" ", max(len(host)-len(other), 0)), strings.Repeat(" ", max(len(other)-len(host), 0))
	screen = regexp.MustCompile(regexp.QuoteMeta(host)+`(-\d+-[0-9a-f]{4})`).ReplaceAllString(screen, other+"$1"+row)
	return regexp.MustCompile("BY\x1b\\[0?m").ReplaceAllString(screen, "$0"+head)
}
