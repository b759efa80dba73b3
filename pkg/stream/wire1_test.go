package stream_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
	"github.com/request-migration/migrate/pkg/stream/fault"
)

// testdata/wire1 holds what the first released wire looked like: each file is an
// exchange that a proxy wrote down between a client and a server of that time
// (commit f581814). Its lines are
//
//	# a remark
//	> a line of the client's; >~ one that is quoted, as it is no text
//	< a line of the server's
//	* shutdown, where the server was told to leave within 2.3 s
//	<eof, where the server closed the connection
//	= what a call of the client's returned
//
// Both halves are played: the client's to today's server, the server's to
// today's client.

// exchange is how one of the recordings was made.
type exchange struct {
	name   string
	server func() *stream.Server
	// caller makes requests with a client and returns how each ended. It may tell
	// the server to leave.
	caller func(ctx context.Context, c *stream.Client, leave func()) []string
	// person is the lines that a person types, each when the server is silent, if
	// there is no client.
	person []string
	// busy says that another connection takes the server's one place.
	busy bool
	// today replaces what the server intentionally says differently now.
	today map[string]string
}

const wire1Drain = 2300 * time.Millisecond

func exchanges() []exchange {
	slow := func(d time.Duration) func() *stream.Server {
		return func() *stream.Server { return &stream.Server{Handler: stream.Echo("server1", d), Resumes: true} }
	}
	handler := func(h stream.Handler) func() *stream.Server {
		return func() *stream.Server { return &stream.Server{Handler: h} }
	}
	injected := func(k fault.Kind) func() *stream.Server {
		return func() *stream.Server {
			i := fault.Inject(stream.Echo("server1", 0), fault.Fault{Mode: fault.First, Kind: k, After: 2})
			return &stream.Server{Handler: i.Handle, Admit: i.Admit, Resumes: true}
		}
	}
	ask := func(reqs ...stream.Request) func(context.Context, *stream.Client, func()) []string {
		return func(ctx context.Context, c *stream.Client, _ func()) []string {
			var all []string
			for _, req := range reqs {
				all = append(all, outcome(ctx, c, req, 0))
			}
			return all
		}
	}
	hello := stream.Request{ID: "b1946ac9d2c41f08", Data: stream.String("hello")}
	resume := stream.Request{ID: "b1946ac9d2c41f08", Data: stream.String("hello"), From: 2, Attempt: 2}
	beyond := stream.Request{ID: "b1946ac9d2c41f08", Data: stream.String("hello"), From: 6}
	return []exchange{
		{name: "answer", server: slow(0), caller: ask(hello, text("héllo \"w\"\n"), text(""))},
		{name: "answer-unnumbered", server: slow(0), person: []string{
			`{"data":"hi"}`, `{"data":"hi","colour":"red","nested":{"data":"no"},"id":"b1946ac9","attempt":3}`,
			``, ` { "from" : 1 , "data" : "hi" } `, `{"data":""}`,
		}},
		{name: "pipelined", server: slow(0), person: []string{"{\"data\":\"a\"}\n{\"data\":\"b\"}\n{\"data\":\"c\"}"}},
		{name: "several-streams", server: slow(time.Second), caller: func(ctx context.Context, c *stream.Client, _ func()) []string {
			return atOnce(ctx, c, text("abc"), text("de"), text("fghi"))
		}},
		{name: "numbered-and-not", server: slow(time.Second), person: []string{
			"{\"stream\":0,\"data\":\"ab\"}\n{\"data\":\"cd\"}\n{\"stream\":9007199254740993,\"data\":\"e\"}",
		}},
		{name: "resume", server: slow(0), caller: ask(resume,
			stream.Request{Data: stream.String("hello"), From: 5, Attempt: 3})},
		{
			name: "from-beyond-the-end", server: slow(0), caller: ask(beyond, hello),
			today: map[string]string{
				`{"stream":1,"event":"error","comment":["cannot start at item 6: the answer has 5"]}`: `{"stream":1,"event":"unresumable","comment":["cannot start at item 6: the answer has 5"]}`,
			},
		},
		{
			name: "from-not-resumed", server: handler(stream.Echo("server1", 0)), caller: ask(resume, hello),
			today: map[string]string{
				`{"stream":1,"event":"error","comment":["cannot start at item 2: this server starts at the first only"]}`: `{"stream":1,"event":"unresumable","comment":["cannot start at item 2: this server starts at the first only"]}`,
			},
		},
		{name: "refused-overloaded", server: func() *stream.Server {
			s := slow(0)()
			s.Admit = func(req stream.Request) error {
				if req.Attempt > 1 {
					return fmt.Errorf("%w: no retries now", stream.ErrOverloaded)
				}
				return nil
			}
			return s
		}, caller: ask(resume, hello)},
		{name: "refused-by-admit", server: func() *stream.Server {
			s := slow(0)()
			s.Admit = func(req stream.Request) error {
				if req.From > 0 {
					return errors.New("not half an answer")
				}
				return nil
			}
			return s
		}, caller: ask(resume, hello)},
		{name: "refused-max-streams", server: func() *stream.Server {
			s := slow(time.Second)()
			s.MaxStreams = 1
			return s
		}, caller: func(ctx context.Context, c *stream.Client, _ func()) []string {
			return atOnce(ctx, c, text("ab"), text("cd"))
		}},
		{name: "refused-connection", server: func() *stream.Server {
			s := slow(time.Minute)()
			s.MaxConns = 1
			return s
		}, busy: true, caller: ask(hello)},
		{name: "refused-close", server: injected(fault.Refuse), caller: ask(hello)},
		{name: "error-line", server: handler(func(_ context.Context, req *stream.Request, send func(stream.Annotated) error) error {
			if err := send(stream.Annotated{Data: req.Data, ID: "i", Event: "note", Comment: []string{"c", "d"}}); err != nil {
				return err
			}
			return errors.New("no such\n\"model\"")
		}), caller: ask(hello, hello)},
		{name: "broken-line", server: injected(fault.Error), caller: ask(hello, hello)},
		{name: "closed", server: injected(fault.Close), caller: ask(hello)},
		{name: "bad-count", server: injected(fault.BadCount), caller: ask(hello)},
		{name: "garbage", server: injected(fault.Garbage), caller: ask(hello)},
		{name: "draining", server: slow(time.Second), caller: func(ctx context.Context, c *stream.Client, leave func()) []string {
			var running sync.WaitGroup
			var first string
			running.Go(func() { first = outcome(ctx, c, hello, 0) })
			time.Sleep(500 * time.Millisecond)
			leave()
			synctest.Wait()
			refused := outcome(ctx, c, text("new"), 0)
			running.Wait()
			return []string{first, refused}
		}},
		{name: "draining-idle", server: slow(0), caller: func(ctx context.Context, c *stream.Client, leave func()) []string {
			first := outcome(ctx, c, hello, 0)
			leave()
			synctest.Wait()
			return []string{first}
		}},
		{name: "cancel", server: slow(time.Second), caller: func(ctx context.Context, c *stream.Client, _ func()) []string {
			left := outcome(ctx, c, hello, 2)
			synctest.Wait()
			return []string{left, outcome(ctx, c, text("hi"), 0)}
		}},
		{name: "credit", server: handler(func(_ context.Context, _ *stream.Request, send func(stream.Annotated) error) error {
			for range 20 {
				if err := send(stream.Annotated{Data: stream.String(wire1Long)}); err != nil {
					return err
				}
			}
			return nil
		}), caller: ask(hello)},
		{name: "pings", server: slow(12 * time.Second), caller: ask(text("hi"), text("ho"))},
		{name: "bad-lines", server: slow(0), person: []string{
			`hello`, `{"data":"hi"`, `"hi"`, "{\"data\":\"\xff\"}", `{}`, `{"id":"x"}`, `{"data":"hi","from":-1}`,
			`{"data":"hi","stream":-1}`, `{"stream":7,"from":1}`, `{"event":"sing"}`, `{"stream":3,"event":"cancel"}`,
			`{"stream":3,"event":"credit","id":"1"}`, `{"data":1}`, `{"data":"hi"}`,
		}},
		{name: "bad-credit", server: slow(0), person: []string{`{"stream":7,"event":"credit","id":"much"}`}},
		{name: "number-in-use", server: slow(time.Hour), person: []string{`{"stream":7,"data":"ab"}`, `{"stream":7,"data":"cd"}`}},
	}
}

// wire1Long is an item's text that recordings abbreviate.
var wire1Long = strings.Repeat("x", 30_000)

const wire1Short = "{30000 x}"

// outcome makes a request, leaves it after that many items, and returns what
// came.
func outcome(ctx context.Context, c *stream.Client, req stream.Request, leaveAfter int) string {
	n := 0
	for _, err := range c.Stream(ctx, "", req) {
		switch {
		case err == nil:
			if n++; n == leaveAfter {
				return fmt.Sprintf("%d items, left", n)
			}
		case errors.Is(err, stream.Application), errors.Is(err, stream.Overloaded), errors.Is(err, stream.Draining),
			errors.Is(err, stream.Unresumable):
			return fmt.Sprintf("%d items, %q", n, err)
		default:
			return fmt.Sprintf("%d items, %s", n, kindOf(err))
		}
	}
	return fmt.Sprintf("%d items", n)
}

// atOnce makes requests, each when the previous one has begun.
func atOnce(ctx context.Context, c *stream.Client, reqs ...stream.Request) []string {
	all := make([]string, len(reqs))
	var running sync.WaitGroup
	for i, req := range reqs {
		running.Go(func() { all[i] = outcome(ctx, c, req, 0) })
		synctest.Wait()
	}
	running.Wait()
	return all
}

// recorded returns the lines of a recording.
func recorded(t *testing.T, name string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "wire1", name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSuffix(line, "\n")
		if mark, quoted, ok := strings.Cut(line, "~ "); ok && len(mark) == 1 { // what is no text
			raw, err := strconv.Unquote(quoted)
			if err != nil {
				t.Fatal(err)
			}
			line = mark + " " + raw
		}
		if line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, strings.ReplaceAll(line, wire1Short, wire1Long))
		}
	}
	return lines
}

// byStream groups lines by stream: streams may take turns in another order than
// they once did.
func byStream(lines []string) map[string][]string {
	all := make(map[string][]string)
	for _, line := range lines {
		stream := "the connection"
		if number, _, ok := strings.Cut(line, ","); ok && strings.HasPrefix(number, `{"stream":`) {
			stream = strings.TrimPrefix(number, "{")
		}
		all[stream] = append(all[stream], line)
	}
	return all
}

// TestWire1Clients plays what clients once sent to today's server, which
// answers as the server did then.
func TestWire1Clients(t *testing.T) {
	for _, x := range exchanges() {
		t.Run(x.name, func(t *testing.T) {
			lines := recorded(t, x.name)
			synctest.Test(t, func(t *testing.T) { playClient(t, x, lines) })
		})
	}
}

func playClient(t *testing.T, x exchange, lines []string) {
	t.Helper()
	s := x.server()
	l := servePipe(t, s)
	if x.busy {
		occupy(t, l)
	}
	conn, err := l.dial(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	p := newPeer(t, conn)
	var mu sync.Mutex
	var got, want []string
	go func() {
		for {
			line, err := p.r.ReadString('\n')
			mu.Lock()
			if line != "" {
				got = append(got, strings.TrimSuffix(line, "\n"))
			}
			if err != nil {
				got = append(got, "eof")
				mu.Unlock()
				return
			}
			mu.Unlock()
		}
	}()
	// heard waits for what the server had sent by then, for a minute.
	heard := func() bool {
		for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			synctest.Wait()
			mu.Lock()
			n := len(got)
			mu.Unlock()
			if n >= len(want) || time.Now().After(end) {
				return n >= len(want)
			}
		}
	}
	var leaving sync.WaitGroup
	for _, line := range lines {
		ok := true
		switch {
		case line == "<eof":
			want = append(want, "eof")
		case line[0] == '<':
			said := line[2:]
			if now, differs := x.today[said]; differs {
				said = now
			}
			want = append(want, said)
		case line[0] == '>':
			ok = heard()
			p.say(line[2:])
		case line[0] == '*':
			ok = heard()
			leaving.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), wire1Drain)
				defer cancel()
				s.Shutdown(ctx)
			})
		}
		if !ok {
			break
		}
	}
	heard()
	mu.Lock()
	defer mu.Unlock()
	if n := len(got); n == len(want)+1 && got[n-1] == "eof" && slices.Contains(lines, "* shutdown") {
		got = got[:n-1] // either end may be the first to close then
	}
	if !maps.EqualFunc(byStream(got), byStream(want), slices.Equal) {
		t.Errorf("server says\n%s\nand once said\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	p.Close()
	leaving.Wait()
}

// occupy takes a place with a long request.
func occupy(t *testing.T, l *pipeListener) {
	t.Helper()
	conn, err := l.dial(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	p := newPeer(t, conn)
	p.say(`{"data":"ab"}`)
	p.line()
	go p.hold()
}

// TestWire1Servers plays what servers once sent to today's client, which asks
// and understands as the client did then.
func TestWire1Servers(t *testing.T) {
	for _, x := range exchanges() {
		if x.caller == nil {
			continue
		}
		t.Run(x.name, func(t *testing.T) {
			lines := recorded(t, x.name)
			synctest.Test(t, func(t *testing.T) { playServer(t, x, lines) })
		})
	}
}

func playServer(t *testing.T, x exchange, lines []string) {
	t.Helper()
	var want []string
	for _, line := range lines {
		if line[0] == '=' {
			want = append(want, line[2:])
		}
	}
	c := newClient(t, &stream.Client{Dial: scripted(t, func(p *peer) {
		credit := 256 << 10 // as every stream begins; at most one here needs more
		for _, line := range lines {
			switch {
			case line == "<eof":
				return
			case line[0] == '<':
				if !p.awaitCredit(&credit) {
					return
				}
				if strings.Contains(line, `,"data":`) {
					credit -= len(line) - len("< ") + len("\n")
				}
				p.say(line[2:])
			case line[0] == '>':
				if err := p.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
					t.Error(err)
				}
				if !p.hears(line[2:], &credit) {
					return
				}
			}
		}
		_ = p.SetReadDeadline(time.Time{}) // fails if the client has closed by now
		p.hold()
	})})
	got := x.caller(t.Context(), c, func() {})
	if !slices.Equal(got, want) {
		t.Errorf("client makes of it\n%s\nand once made\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// hears reads what the client sends next, which is want. How a client divides
// its grants is its own affair, as long as the server need not wait.
func (p *peer) hears(want string, credit *int) bool {
	p.tb.Helper()
	if _, isCredit := creditIn(want); isCredit {
		return true
	}
	for {
		got := p.line()
		n, isCredit := creditIn(got)
		*credit += n
		switch {
		case isCredit:
		case got == want:
			return true
		default:
			p.tb.Errorf("client sends %s, and once sent %s", got, want)
			return false
		}
	}
}

// awaitCredit waits, as a server does that has used up its credit.
func (p *peer) awaitCredit(credit *int) bool {
	p.tb.Helper()
	for *credit <= 0 {
		line := p.line()
		n, ok := creditIn(line)
		if !ok {
			p.tb.Errorf("client sends %q where the server waits for credit", line)
			return false
		}
		*credit += n
	}
	return true
}

func creditIn(line string) (n int, ok bool) {
	_, id, ok := strings.Cut(line, `,"event":"credit","id":"`)
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimSuffix(id, `"}`))
	return n, err == nil
}
