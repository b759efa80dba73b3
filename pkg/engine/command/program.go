package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// program is the process of one request, and its group.
type program struct {
	e   *Engine
	log *slog.Logger
	cmd *exec.Cmd
	in  *os.File // our ends of its standard streams
	out *os.File
	err *os.File

	tail   tail           // of its standard error
	pipes  sync.WaitGroup // the goroutines of its standard input and error
	exited chan struct{}  // closed when it has ended; its children may go on
	over   chan struct{}  // closed when its output was read to the end
}

// start starts the program, with the request's data on its way to it.
func (e *Engine) start(req *stream.Request, env []string) (*program, error) {
	p := &program{
		e: e, log: e.cfg.Logger.With("request", req.ID),
		cmd:    &exec.Cmd{Path: e.path, Args: e.cfg.Args, Dir: e.cfg.Dir, Env: env, SysProcAttr: ofGroup()},
		exited: make(chan struct{}), over: make(chan struct{}),
	}
	theirs, err := p.openPipes()
	if err == nil {
		err = p.run()
	}
	closeFiles(theirs...)
	if err != nil {
		closeFiles(p.in, p.out, p.err)
		return nil, err
	}
	e.supervisor.began(p.cmd.Process.Pid)
	p.log.Debug("program started", "pid", p.cmd.Process.Pid, "from", req.From, "attempt", req.Attempt)
	p.pipes.Go(func() { p.feed(req) })
	p.pipes.Go(p.listen)
	return p, nil
}

// openPipes makes the standard streams, and returns the program's ends.
func (p *program) openPipes() (theirs []*os.File, err error) {
	theirIn, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.in, theirs = in, append(theirs, theirIn)
	out, theirOut, err := os.Pipe()
	if err != nil {
		return theirs, err
	}
	p.out, theirs = out, append(theirs, theirOut)
	widen(out)
	stderr, theirErr, err := os.Pipe()
	if err != nil {
		return theirs, err
	}
	p.err, theirs = stderr, append(theirs, theirErr)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = theirIn, theirOut, theirErr
	return theirs, nil
}

// closeFiles closes files, of which some may be nil. Nothing that they hold is
// needed any more.
func closeFiles(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}

// run starts the process, in a goroutine that waits for its end on the same
// thread: on Linux the process ends with the thread that started it.
func (p *program) run() error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			awaitExit(p.cmd)
			close(p.exited)
		}
	}()
	return <-started
}

// feed writes the request's data to the program's standard input. A program
// need not read it.
func (p *program) feed(req *stream.Request) {
	defer closeFiles(p.in)
	data := []byte(req.Data)
	if s, ok := req.Text(); ok {
		data = []byte(s)
	}
	_, _ = p.in.Write(data)
}

// answer sends the items of the program's output until it has ended, and
// returns how the stream ends.
func (p *program) answer(ctx context.Context, send func(stream.Annotated) error) error {
	items := &sink{items: p.e.cfg.Items, send: send}
	rest, err := p.follow(ctx, items)
	held := errors.Is(err, errHeld)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil && !held:
		return err
	}
	verdict := p.verdict()
	if _, broke := errors.AsType[*ending](verdict); broke {
		return verdict
	}
	if err := items.finish(rest); err != nil {
		return err
	}
	if held && verdict == nil {
		return errHeld
	}
	return verdict
}

// follow reads the program's output, and returns when its group has ended. rest
// is the beginning of a character at the end of the output.
func (p *program) follow(ctx context.Context, items *sink) (rest []byte, err error) {
	wanted, stop := context.WithCancel(ctx)
	var overseeing sync.WaitGroup
	overseeing.Go(func() { p.oversee(wanted) })
	read := false
	defer func() {
		if !read {
			stop() // send has panicked
		}
		close(p.over)
		overseeing.Wait()
		stop()
		p.pipes.Wait()
		closeFiles(p.in, p.out, p.err)
		p.log.Debug("program ended", "pid", p.cmd.Process.Pid, "state", p.cmd.ProcessState)
	}()
	rest, err = p.read(items)
	if err != nil {
		stop()
		_, _ = p.out.WriteTo(discard{}) // so that it need not wait for us to end
	}
	read = true
	return rest, err
}

// discard is a writer for what nobody wants.
type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// errHeld is the request's own error where its answer may lack something.
var errHeld = errors.New("the program has ended, but a process that it started still holds its standard output: wait for it, or redirect its output")

// read reads the output to its end, and returns its rest as follow does.
func (p *program) read(items *sink) (rest []byte, err error) {
	buf := make([]byte, firstRead)
	n := 0
	for {
		select {
		case <-p.exited:
			// Whoever holds the output now may be silent for a while, but not for
			// ever. Anew for each read: our client may be slow.
			_ = p.out.SetReadDeadline(time.Now().Add(p.e.cfg.Grace))
		default:
		}
		m, err := readPipe(p.out, buf[n:])
		if m > 0 {
			used, err := items.write(buf[:n+m])
			if err != nil {
				return nil, err
			}
			left := buf[used : n+m]
			if n+m == len(buf) && len(buf) < readSize {
				buf = make([]byte, readSize)
			}
			n = copy(buf, left)
		}
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return buf[:n], errHeld
		default:
			return buf[:n], nil // its end
		}
	}
}

// readPipe reads from one of our pipes. When its deadline has passed, perhaps while
// we did not run, what is there still counts.
func readPipe(f *os.File, buf []byte) (int, error) {
	n, err := f.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return readNow(f, buf)
	}
	return n, err
}

// oversee ends the group when nobody wants the answer any more, and what is left
// of it when the program has ended.
func (p *program) oversee(wanted context.Context) {
	unwanted, exited, over := wanted.Done(), p.exited, p.over
	var grace <-chan time.Time
	for exited != nil || over != nil {
		select {
		case <-exited:
			exited = nil
			if wanted.Err() == nil {
				_ = p.out.SetReadDeadline(time.Now().Add(p.e.cfg.Grace)) // see read
			}
		case <-over:
			over = nil
		case <-unwanted:
			unwanted = nil
			terminate(p.cmd)
			timer := time.NewTimer(p.e.cfg.Grace)
			defer timer.Stop()
			grace = timer.C
		case <-grace:
			kill(p.cmd)
			// Who has left the group is not waited for.
			_ = p.out.SetReadDeadline(time.Now())
		}
	}
	kill(p.cmd)
	reap(p.cmd)
	p.e.supervisor.ended(p.cmd.Process.Pid)
	_ = p.in.SetWriteDeadline(time.Now())
	_ = p.err.SetReadDeadline(time.Now().Add(lastWords))
}

// lastWords is how long a program's standard error is read after its group has
// ended, if somebody else still holds it.
const lastWords = 100 * time.Millisecond

// exitTempFail is EX_TEMPFAIL of sysexits.h: a temporary failure.
const exitTempFail = 75

// verdict returns what the way in which the program ended means for the stream.
func (p *program) verdict() error {
	state := p.cmd.ProcessState
	said := p.tail.String()
	switch code := state.ExitCode(); code {
	case 0:
		return nil
	case exitTempFail, -1: // -1: a signal
		how := "the program was ended by a " + state.String()
		if code == exitTempFail {
			how = "the program ended with exit code 75"
		}
		return &ending{stream.ErrFailedUnreported, withWords(how, said)}
	default:
		data, err := json.Marshal(struct {
			ExitCode int    `json:"exit_code"`
			Stderr   string `json:"stderr"`
		}{code, said})
		if err != nil {
			return err // not of such a value
		}
		return &stream.Error{Message: withWords(fmt.Sprintf("the program ended with exit code %d", code), said), Data: data}
	}
}

// maxText is how many bytes of an error's text are sent.
const maxText = 4096

// withWords adds what the program said to how it ended: of more than fits, the
// end.
func withWords(how, said string) string {
	said = strings.TrimSpace(said)
	if said == "" {
		return how
	}
	if room := maxText - len(how) - len(": "); len(said) > room {
		said = strings.TrimSpace(strings.ToValidUTF8(said[len(said)-room:], ""))
	}
	return how + ": " + said
}

// tail is the end of what a program wrote to its standard error.
type tail struct{ buf []byte }

// tailSize is how much of it is kept.
const tailSize = 4 << 10

// add adds what was read.
func (t *tail) add(b []byte) {
	if len(b) > tailSize {
		b = b[len(b)-tailSize:]
	}
	if over := len(t.buf) + len(b) - tailSize; over > 0 {
		t.buf = t.buf[:copy(t.buf, t.buf[over:])]
	}
	t.buf = append(t.buf, b...)
}

// String returns the end as text.
func (t *tail) String() string { return string(bytes.ToValidUTF8(t.buf, []byte("\ufffd"))) }
