//go:build unix

package command_test

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/engine/command"
	"github.com/request-migration/migrate/pkg/stream"
)

// patience bounds each wait for a process. Nothing takes nearly as long.
const patience = time.Minute

// newEngine returns an engine that ends with the test.
func newEngine(tb testing.TB, cfg command.Config) *command.Engine {
	tb.Helper()
	e, err := command.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(e.Close)
	return e
}

// sh returns the configuration of a shell script.
func sh(script string) command.Config {
	return command.Config{Args: []string{"sh", "-c", script}}
}

// answer is what a handler has sent, and how it returned.
type answer struct {
	items []string
	err   error
}

// text returns the items as one.
func (a answer) text() string { return strings.Join(a.items, "") }

// ask has a handler answer a request.
func ask(tb testing.TB, e *command.Engine, req stream.Request) answer {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	return askIn(ctx, e, req)
}

func askIn(ctx context.Context, e *command.Engine, req stream.Request) answer {
	var a answer
	a.err = e.Handle(ctx, &req, func(item stream.Annotated) error {
		if s, ok := item.Text(); ok {
			a.items = append(a.items, s)
		} else {
			a.items = append(a.items, string(item.Data))
		}
		return ctx.Err()
	})
	return a
}

// question is a request with text.
func question(s string) stream.Request { return stream.Request{Data: stream.String(s)} }

// newLogger returns a logger to r.
func newLogger(r *records) *slog.Logger { return slog.New(r) }

// records is a log that a test looks at.
type records struct {
	slog.Handler
	on    func(line string) // called for each line, if set
	mu    sync.Mutex
	lines []string
}

func (r *records) Enabled(context.Context, slog.Level) bool { return true }

func (r *records) WithAttrs([]slog.Attr) slog.Handler { return r }

func (r *records) Handle(_ context.Context, rec slog.Record) error {
	var b strings.Builder
	b.WriteString(rec.Level.String() + " " + rec.Message)
	rec.Attrs(func(a slog.Attr) bool {
		b.WriteString(" " + a.String())
		return true
	})
	if r.on != nil {
		r.on(b.String())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, b.String())
	return nil
}

// number returns the number that stands after a text.
func (r *records) number(t *testing.T, after string) int {
	t.Helper()
	_, rest, ok := strings.Cut(r.all(), after)
	if !ok {
		t.Fatalf("no %q in\n%s", after, r.all())
	}
	rest, _, _ = strings.Cut(rest, "\n")
	return atoi(t, rest)
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// all returns the lines so far.
func (r *records) all() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.lines, "\n")
}
