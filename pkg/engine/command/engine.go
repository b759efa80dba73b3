package command

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// ResumeBy is a program's promise how it carries an answer on that another
// instance began.
type ResumeBy string

// The promises.
const (
	// ResumeNo: it can only begin at the first item.
	ResumeNo ResumeBy = ""
	// ResumeIndex: it begins at the item that MIGRATE_FROM names, and every
	// instance writes the same items. Items that depend on when they were read,
	// [Chunks], cannot be promised.
	ResumeIndex ResumeBy = "index"
	// ResumePrefix: it goes on behind the items so far, which are in the file that
	// MIGRATE_PREFIX names.
	ResumePrefix ResumeBy = "prefix"
)

// ParseResumeBy parses the name of a promise; "" is that of none.
func ParseResumeBy(s string) (ResumeBy, error) {
	switch r := ResumeBy(s); r {
	case ResumeNo, ResumeIndex, ResumePrefix:
		return r, nil
	}
	return "", fmt.Errorf("unknown way to resume %q: valid are %s, %s", s, ResumeIndex, ResumePrefix)
}

// DefaultGrace is how long a program that was told to end has for it, and how
// long one that has ended may leave its output open.
const DefaultGrace = 2 * time.Second

// Config says which program an [Engine] runs, and how. Args is required.
type Config struct {
	// Args are the program, by its path or as a name to be found in PATH, and its
	// arguments.
	Args []string
	// Dir is the directory in which the program runs. "" is this process's.
	Dir string
	// Env is the program's environment before the variables of the request are
	// added. Nil is this process's.
	Env []string
	// Items says how the output becomes items. "" is Lines.
	Items Items
	// ResumeBy is the program's promise. Without it the engine refuses requests
	// that begin after the first item, with [stream.ErrUnresumable].
	ResumeBy ResumeBy
	// Grace is how long a program has to end after SIGTERM, and how long its
	// output may be silent and open after its end. 0 is DefaultGrace.
	Grace time.Duration
	// Logger gets, at debug level, what programs write to their standard error,
	// line by line, and how they end; and as warnings what keeps the engine from
	// ending them. Nil logs nothing.
	Logger *slog.Logger
}

// Engine runs a program for each request. It is safe for concurrent use.
type Engine struct {
	cfg        Config
	path       string // of the program
	prefixes   prefixes
	supervisor *supervisor
	running    atomic.Int64 // programs
}

// maxPrograms is how many programs run at once at most: each takes a thread that
// waits for it, of which Go allows 10,000.
const maxPrograms = 4096

// New checks that the program can be started, as far as that can be known
// without running it, and returns an engine for it. Close releases what the
// engine holds.
func New(cfg Config) (*Engine, error) {
	if len(cfg.Args) == 0 {
		return nil, errors.New("no command to run")
	}
	if cfg.Items == "" {
		cfg.Items = Lines
	}
	if _, err := ParseItems(string(cfg.Items)); err != nil {
		return nil, err
	}
	if _, err := ParseResumeBy(string(cfg.ResumeBy)); err != nil {
		return nil, err
	}
	if cfg.Items == Chunks && cfg.ResumeBy == ResumeIndex {
		return nil, errors.New("chunks cannot be resumed by index: where they are divided depends on when they are read")
	}
	if cfg.Grace <= 0 {
		cfg.Grace = DefaultGrace
	}
	cfg.Logger = newLogger(cfg.Logger)
	if cfg.Env == nil {
		cfg.Env = os.Environ()
	}
	// A server that is itself such a program has these from its own.
	cfg.Env = slices.DeleteFunc(slices.Clone(cfg.Env), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(variables(), name)
	})
	path, err := find(cfg)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", cfg.Args[0], cause(err))
	}
	prefixes, err := newPrefixes(cfg.ResumeBy)
	if err != nil {
		return nil, err
	}
	return &Engine{cfg: cfg, path: path, prefixes: prefixes, supervisor: newSupervisor(cfg.Logger, prefixes.dir)}, nil
}

// find returns the path of the program, or why it cannot be started.
func find(cfg Config) (string, error) {
	if cfg.Dir != "" {
		if _, err := os.Stat(cfg.Dir + string(filepath.Separator)); err != nil {
			return "", fmt.Errorf("in %s: %w", cfg.Dir, cause(err))
		}
	}
	path, err := exec.LookPath(cfg.Args[0])
	if err == nil {
		path, err = filepath.Abs(path) // it may run elsewhere
	}
	if err != nil {
		return "", err
	}
	err = check(cfg, path)
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.New("its interpreter does not exist") // it does itself
	}
	return path, err
}

// cause returns err without the paths that packages exec and os put before it.
func cause(err error) error {
	if e, ok := errors.AsType[*exec.Error](err); ok {
		err = e.Err
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	return err
}

// Close releases what the engine holds beside its programs. Call it after the
// last Handle has returned.
func (e *Engine) Close() {
	e.supervisor.close()
	e.prefixes.close()
}

// Handle runs the program for a request. It is a [stream.Handler]. While 4096
// programs run it refuses further requests with [stream.ErrOverloaded].
func (e *Engine) Handle(ctx context.Context, req *stream.Request, send func(stream.Annotated) error) error {
	switch {
	case req.From > 0 && e.cfg.ResumeBy == ResumeNo:
		return &ending{stream.ErrUnresumable, fmt.Sprintf("cannot start at item %d: this command starts at the first only", req.From)}
	case e.cfg.ResumeBy == ResumePrefix && len(req.Prefix) != req.From:
		return &ending{stream.ErrUnresumable, fmt.Sprintf("cannot start at item %d: this command needs the items before it", req.From)}
	}
	defer e.running.Add(-1)
	if e.running.Add(1) > maxPrograms {
		return &ending{stream.ErrOverloaded, fmt.Sprintf("%d programs run, the most that can", maxPrograms)}
	}
	env, err := e.environment(req)
	if err != nil {
		return err
	}
	if e.cfg.ResumeBy == ResumePrefix {
		name, err := e.prefixes.file(e.cfg.Items, req.Prefix)
		if err != nil {
			return err
		}
		defer e.prefixes.remove(name)
		if name != "" {
			env = append(env, varPrefix+"="+name)
		}
	}
	p, err := e.start(req, env)
	if err != nil {
		return notStarted(err)
	}
	return p.answer(ctx, send)
}

// The variables of a request.
const (
	varRequestID = "MIGRATE_REQUEST_ID"
	varAttempt   = "MIGRATE_ATTEMPT"
	varFrom      = "MIGRATE_FROM"
	varPrefix    = "MIGRATE_PREFIX"
)

// passedOn returns the headers that the program gets, by their variables.
func passedOn() map[string]string {
	return map[string]string{"TRACEPARENT": "traceparent", "TRACESTATE": "tracestate", "BAGGAGE": "baggage"}
}

// variables returns the names of all variables that depend on the request.
func variables() []string {
	names := []string{varRequestID, varAttempt, varFrom, varPrefix}
	for name := range passedOn() {
		names = append(names, name)
	}
	return names
}

// maxID bounds the request's id in the environment: one of package router has
// 16 bytes.
const maxID = 1024

// environment returns the program's environment.
func (e *Engine) environment(req *stream.Request) ([]string, error) {
	if len(req.ID) > maxID || strings.Contains(req.ID, "\x00") {
		return nil, fmt.Errorf("the request's id is longer than %d bytes, or has a NUL in it: no command can be given it", maxID)
	}
	env := append(slices.Clip(e.cfg.Env),
		varAttempt+"="+strconv.Itoa(max(req.Attempt, 1)), varFrom+"="+strconv.Itoa(req.From))
	if req.ID != "" {
		env = append(env, varRequestID+"="+req.ID)
	}
	for name, header := range passedOn() {
		if value, ok := req.Headers[header]; ok && !strings.Contains(value, "\x00") {
			env = append(env, name+"="+value)
		}
	}
	return env, nil
}

// ending is how a stream ends other than with its answer whole, with a text of
// its own.
type ending struct {
	kind error // of package stream
	text string
}

func (e *ending) Error() string { return e.text }

func (e *ending) Unwrap() error { return e.kind }

// notStarted returns how the stream ends for a program that was not started.
func notStarted(err error) error {
	text := fmt.Sprintf("starting the program: %v", cause(err))
	// ETXTBSY: somebody is writing the program.
	for _, passing := range []error{syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE, syscall.ETXTBSY} {
		if errors.Is(err, passing) {
			return &ending{stream.ErrOverloaded, text}
		}
	}
	if errors.Is(err, syscall.E2BIG) {
		return errors.New(text) // this request's headers make it so
	}
	return &ending{stream.ErrFailed, text}
}
