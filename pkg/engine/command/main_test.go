//go:build unix

package command_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"testing"

	"github.com/request-migration/migrate/pkg/engine/command"
)

// TestMain makes this test's executable the programs of its tests, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "program" {
		if err := program(os.Args[2], os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, err) //nolint:forbidigo // it is a program's own
			os.Exit(1)                   //nolint:forbidigo // as above
		}
		return
	}
	os.Exit(m.Run()) //nolint:forbidigo // this is the main function of the tests
}

// program runs a program:
//
//	lines BYTES LENGTH   writes lines of that length, newline included
//	bytes BYTES          writes as many bytes and no newline
//	fill BYTES           writes until that would block, says on standard error after how
//	                     many bytes it did, and then writes the rest
func program(name string, args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	switch name {
	case "lines":
		length, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return write(n, append(bytes.Repeat([]byte("x"), length-1), '\n'))
	case "bytes":
		return write(n, bytes.Repeat([]byte("x"), 1024))
	case "fill":
		return fill(n)
	}
	return fmt.Errorf("no program %q", name)
}

// write writes n bytes, pattern after pattern.
func write(n int, pattern []byte) error {
	w := bufio.NewWriterSize(os.Stdout, 64<<10) //nolint:forbidigo // it is a program's own
	for ; n > 0; n -= len(pattern) {
		if _, err := w.Write(pattern[:min(n, len(pattern))]); err != nil {
			return err
		}
	}
	return w.Flush()
}

func fill(n int) error {
	if err := syscall.SetNonblock(1, true); err != nil {
		return err
	}
	block, wrote := bytes.Repeat([]byte("x"), 4096), 0
	for wrote < n {
		m, err := syscall.Write(1, block)
		if errors.Is(err, syscall.EAGAIN) {
			break
		}
		if err != nil {
			return err
		}
		wrote += m
	}
	fmt.Fprintf(os.Stderr, "blocked after %d\n", wrote) //nolint:forbidigo // as above
	if err := syscall.SetNonblock(1, false); err != nil {
		return err
	}
	return write(n-wrote, block)
}

// testProgram returns the configuration of one of these programs.
func testProgram(tb testing.TB, args ...string) command.Config {
	tb.Helper()
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	return command.Config{Args: append([]string{self, "program"}, args...)}
}
