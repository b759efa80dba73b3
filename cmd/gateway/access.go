package gateway

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/request-migration/migrate/cmd/internal/cli"
	"github.com/request-migration/migrate/pkg/gateway"
)

// accessLog writes a line of JSON for each request. A nil one writes nothing.
type accessLog struct {
	mu   sync.Mutex
	w    io.Writer
	file *os.File // nil for standard output
}

func openAccessLog(cmd *cobra.Command, name string) (*accessLog, error) {
	switch name {
	case "":
		return nil, nil
	case "-":
		return &accessLog{w: cmd.OutOrStdout()}, nil
	}
	// It has the names of keys, and who was slow when.
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, cli.Invalid(cmd, "access-log", err)
	}
	return &accessLog{w: f, file: f}, nil
}

func (a *accessLog) write(e *gateway.Entry) {
	if a == nil {
		return
	}
	b, err := json.Marshal(e)
	if err != nil {
		panic(err) // every value of this type can be marshalled
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	_, _ = a.w.Write(append(b, '\n')) // a log that is full stops no request
}

func (a *accessLog) close() {
	if a != nil && a.file != nil {
		_ = a.file.Close() // each line was written at once
	}
}

// readKeys reads a file of keys: NAME KEY in each line, but for empty ones and those that begin
// with #.
func readKeys(name string) ([]gateway.Key, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	var keys []gateway.Key
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) != 2 {
			return nil, fmt.Errorf("%s, line %d: want NAME KEY", name, n) // not the line: it may be a key
		}
		keys = append(keys, gateway.Key{Name: fields[0], Key: fields[1]})
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s has no key: want lines of NAME KEY", name)
	}
	return keys, nil
}
