package stream_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/request-migration/migrate/pkg/stream"
	"github.com/request-migration/migrate/pkg/stream/fault"
)

func faulty(f fault.Fault) *stream.Server {
	i := fault.Inject(stream.Echo("server1", 0), f)
	return &stream.Server{Handler: i.Handle, Admit: i.Admit, Resumes: true}
}

// faultKinds is what the client sees of each fault after two items of hello.
// fault.Exit has a test of its own.
var faultKinds = []struct {
	kind  fault.Kind
	want  stream.Kind
	items string
}{
	{"", stream.Failed, "he"},
	{fault.Error, stream.Failed, "he"},
	{fault.Close, stream.Truncated, "he"},
	{fault.Reset, stream.Reset, "he"},
	{fault.Stall, stream.Stalled, "he"},
	{fault.Garbage, stream.Protocol, "he"},
	{fault.HalfLine, stream.Truncated, "he"},
	{fault.NoEnd, stream.Truncated, "hello"},
	{fault.BadCount, stream.Protocol, "hello"},
	{fault.Refuse, stream.Truncated, ""},
	{fault.Overload, stream.Overloaded, ""},
}

func TestFaults(t *testing.T) {
	modes := []struct {
		mode  string
		fails string // f for each request that fails, . for one that does not
	}{
		{"never", "...."}, {"first", "f..."}, {"always", "ffff"}, {"3", "..f."}, {"2-3", ".ff."},
	}
	for _, tt := range faultKinds {
		for _, m := range modes {
			t.Run(fmt.Sprintf("%s/%s", tt.kind, m.mode), func(t *testing.T) {
				if tt.kind == fault.Reset {
					testFault(t, tt.kind, tt.want, tt.items, m.mode, m.fails, func(s *stream.Server) func() *stream.Client {
						addr := serve(t, s)
						return func() *stream.Client { return &stream.Client{Dial: toAddr(addr), StartTimeout: patience} }
					})
					return
				}
				synctest.Test(t, func(t *testing.T) {
					testFault(t, tt.kind, tt.want, tt.items, m.mode, m.fails, func(s *stream.Server) func() *stream.Client {
						l := servePipe(t, s)
						return func() *stream.Client { return &stream.Client{Dial: l.dial} }
					})
				})
			})
		}
	}
}

// toAddr dials one address, whatever is asked for.
func toAddr(addr string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", addr)
	}
}

func testFault(t *testing.T, kind fault.Kind, want stream.Kind, before, mode, fails string,
	start func(*stream.Server) func() *stream.Client,
) {
	t.Helper()
	m, err := fault.ParseMode(mode)
	if err != nil {
		t.Fatal(err)
	}
	var shown atomic.Int32
	client := start(faulty(fault.Fault{Mode: m, Kind: kind, After: 2, Notify: func(f fault.Fault) {
		if f.After != 2 || f.Mode != m {
			t.Errorf("notified of %+v", f)
		}
		shown.Add(1)
	}}))
	for n, f := range fails {
		// Each request has a client of its own: one that keeps connections would
		// retry a refused request.
		c := newClient(t, client())
		got, err := collect(t, c, "", text("hello"))
		if f == 'f' {
			if !errors.Is(err, want) || got != before {
				t.Errorf("request %d: %q, %v, want %q and %v", n+1, got, err, before, want)
			}
		} else if err != nil || got != "hello" {
			t.Errorf("request %d: %q, %v, want no fault", n+1, got, err)
		}
	}
	if got, want := int(shown.Load()), strings.Count(fails, "f"); got != want {
		t.Errorf("notified %d times, want %d", got, want)
	}
}

// An answer that is not longer than After shows no fault.
func TestFaultAfter(t *testing.T) {
	for _, tt := range faultKinds {
		refuses := tt.kind == fault.Refuse || tt.kind == fault.Overload
		if refuses || tt.kind == fault.Reset {
			continue
		}
		t.Run(string(tt.kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for after, answers := range map[int]map[string]bool{
					0: {"": false, "h": true, "he": true},
					2: {"": false, "h": false, "he": false, "hel": true},
				} {
					l := servePipe(t, faulty(fault.Fault{Mode: fault.Always, Kind: tt.kind, After: after}))
					for s, shows := range answers {
						c := newClient(t, &stream.Client{Dial: l.dial})
						got, err := collect(t, c, "", text(s))
						if !shows && (got != s || err != nil) {
							t.Errorf("after %d: answer %q shows %q, %v", after, s, got, err)
						}
						if shows && !errors.Is(err, tt.want) {
							t.Errorf("after %d: answer %q shows no fault but %q, %v", after, s, got, err)
						}
					}
				}
			})
		})
	}
}

// A handler that ignores the error of send cannot complete its answer.
func TestFaultOfStubbornHandler(t *testing.T) {
	i := fault.Inject(func(_ context.Context, _ *stream.Request, send func(stream.Annotated) error) error {
		for range 5 {
			_ = send(stream.Annotated{Data: stream.String("x")}) // what is tested
		}
		return nil
	}, fault.Fault{Mode: fault.Always, After: 2})
	addr := serve(t, &stream.Server{Handler: i.Handle, Admit: i.Admit})
	got, err := items(t.Context(), newClient(t, &stream.Client{}), addr, text(""))
	if len(got) != 2 || !errors.Is(err, stream.Failed) {
		t.Errorf("%d items, %v, want 2 and failed", len(got), err)
	}
}

// An error of the handler is not covered up.
func TestFaultLeavesErrorsAlone(t *testing.T) {
	for _, kind := range fault.Kinds() {
		if kind == fault.Refuse || kind == fault.Overload {
			continue
		}
		addr := serve(t, faulty(fault.Fault{Mode: fault.Always, Kind: kind}))
		_, err := items(t.Context(), newClient(t, &stream.Client{}), addr, stream.Request{Data: []byte("1")})
		if !errors.Is(err, stream.Application) {
			t.Errorf("%s: %v, want the handler's error", kind, err)
		}
	}
}

// exitEnv makes TestExitServer serve in the process that TestFaultExit starts.
const exitEnv = "STREAM_TEST_EXIT"

func TestExitServer(t *testing.T) {
	if os.Getenv(exitEnv) == "" {
		return // it is TestFaultExit that tests
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(l.Addr()) //nolint:forbidigo // for the process that runs this one
	t.Fatal(faulty(fault.Fault{Mode: fault.Always, Kind: fault.Exit, After: 2}).Serve(l))
}

func TestFaultExit(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestExitServer$")
	cmd.Env = append(os.Environ(), exitEnv+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, &stream.Client{})
	got, err := collect(t, c, strings.TrimSpace(addr), text("hello"))
	if got != "he" || !errors.Is(err, stream.Truncated) && !errors.Is(err, stream.Reset) {
		t.Errorf("%q, %v, want he and a lost connection", got, err)
	}
	err = cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
		t.Errorf("the server ended with %v, want exit status 1", err)
	}
}
