//go:build unix

package cmd_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestProtocolExamples holds each exchange in docs/protocol.md against the server
// that its first line starts.
func TestProtocolExamples(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("(?ms)^```text\n# migrate serve --name server1 (.*?)\n(.*?)^```$").FindAllStringSubmatch(string(text), -1)
	if want := strings.Count(string(text), "```text\n"); len(examples) != want || want == 0 {
		t.Fatalf("%d of %d exchanges begin with a server", len(examples), want)
	}
	for _, example := range examples {
		w := newWorld(t)
		server := w.serve(t, "server1", strings.Fields(example[1])...)
		if err := exchange(t, w.address(t, "server1"), example[2]); err != nil {
			t.Errorf("%v, in\n%s", err, example[0])
		}
		server.kill()
	}
}

// exchange says the lines that begin with > to a server, and reads those that
// begin with <, in which … stands for anything.
func exchange(t *testing.T, address, lines string) error {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	answers := bufio.NewReader(conn)
	for line := range strings.Lines(lines) {
		if said, ok := strings.CutPrefix(line, "> "); ok {
			if _, err := conn.Write([]byte(said)); err != nil {
				return fmt.Errorf("saying %q: %w", said, err)
			}
			continue
		}
		want, ok := strings.CutPrefix(line, "< ")
		if !ok {
			return fmt.Errorf("the line %q begins with neither > nor <", line)
		}
		got, err := answers.ReadString('\n')
		if err != nil {
			return fmt.Errorf("waiting for %q: %w", want, err)
		}
		pattern := strings.ReplaceAll(regexp.QuoteMeta(want), "…", ".+")
		if ok, err := regexp.MatchString("^"+pattern+"$", got); err != nil || !ok {
			return fmt.Errorf("the server answers %q, want %q", got, want)
		}
	}
	return nil
}

// address returns where a server listens, as its record says.
func (w *world) address(t *testing.T, name string) string {
	t.Helper()
	value, err := os.ReadFile(filepath.Join(w.kv, "v1", "instances", w.recordOf(t, name)))
	if err != nil {
		t.Fatal(err)
	}
	var record struct{ Transport struct{ NDJSON string } }
	if err := json.Unmarshal(value, &record); err != nil || record.Transport.NDJSON == "" {
		t.Fatalf("the record of %s is %s: %v", name, value, err)
	}
	return record.Transport.NDJSON
}
