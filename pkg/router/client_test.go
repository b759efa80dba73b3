package router

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

// What a client of somebody's own yields, alone or wrapped, is judged as the break that it
// stands for.
func TestBareErrors(t *testing.T) {
	for name, tt := range map[string]struct {
		err    error
		kind   stream.Kind
		goesOn bool
		down   bool
	}{
		"truncated":         {stream.Truncated, stream.Truncated, true, true},
		"failed":            {stream.ErrFailed, stream.Failed, true, true},
		"failed, sound":     {stream.ErrFailedUnreported, stream.Failed, true, false},
		"overloaded":        {stream.ErrOverloaded, stream.Overloaded, true, false},
		"overloaded for":    {stream.OverloadedFor(7 * time.Second), stream.Overloaded, true, false},
		"draining":          {stream.ErrDraining, stream.Draining, true, false},
		"unresumable":       {stream.ErrUnresumable, stream.Unresumable, true, false},
		"application":       {stream.Application, stream.Application, false, false},
		"application, data": {&stream.Error{Message: "no", Data: []byte(`{"code":7}`)}, stream.Application, false, false},
	} {
		for _, err := range []error{tt.err, fmt.Errorf("engine: %w", tt.err)} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					client := &servers{by: map[string]server{
						"server1": func(context.Context, stream.Request, func(string) bool) error { return err },
						"server2": whole,
					}}
					r := start(t, Config{Source: newListing(instances(2)...), Client: client})
					var kinds []stream.Kind
					note := func(e BreakEvent) { kinds = append(kinds, e.Kind()) }
					got, failed := ask(t.Context(), r, traced(&Trace{Break: note, Refused: note}))
					if strings.Trim(got, "|") == "hello" != tt.goesOn || failed == nil != tt.goesOn {
						t.Errorf("got %q, %v", got, failed)
					}
					if len(kinds) != 1 || kinds[0] != tt.kind {
						t.Errorf("kinds %v, want %s", kinds, tt.kind)
					}
					if down := len(r.Tiers().Down) > 0; down != tt.down {
						t.Errorf("down: %v", down)
					}
					if !tt.goesOn && !errors.Is(failed, err) {
						t.Errorf("%v is not %v", failed, err)
					}
					if name == "overloaded for" {
						sleep(6 * time.Second)
						if n := r.Tiers().BackingOff; n != 1 {
							t.Errorf("%d back off", n)
						}
					}
				})
			})
		}
	}
}

// The code in a handler's error is found by the caller, in whatever attempt it comes.
func TestApplicationData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		said := &stream.Error{Message: "too long", Data: []byte(`{"code":"context_length_exceeded"}`)}
		client := &servers{by: map[string]server{
			"server1": breaking(stream.Reset, 1),
			"server2": func(context.Context, stream.Request, func(string) bool) error {
				return &stream.Break{Kind: stream.Application, Reason: said.Message, Err: said}
			},
		}}
		r := start(t, Config{Source: newListing(instances(2)...), Client: client})
		_, err := ask(t.Context(), r, hello())
		if got, ok := errors.AsType[*stream.Error](err); !ok || string(got.Data) != string(said.Data) {
			t.Errorf("%v: found %v", err, got)
		}
	})
}

// The errors of a dial's own context are not those of the caller's.
func TestInnerContextErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial := &net.OpError{Op: "dial", Err: context.DeadlineExceeded}
		client := &servers{by: map[string]server{"server1": func(context.Context, stream.Request, func(string) bool) error {
			return &stream.Break{Kind: stream.Unreachable, Reason: "dial", Err: errors.Join(dial, context.Canceled, os.ErrDeadlineExceeded)}
		}}}
		r := start(t, Config{Source: newListing(instance(1)), Client: client})
		_, err := ask(t.Context(), r, hello())
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			t.Errorf("%v matches the errors of contexts", err)
		}
		b, isBreak := errors.AsType[*stream.Break](err)
		op, isOp := errors.AsType[*net.OpError](err)
		if !isBreak || b.Kind != stream.Unreachable || !isOp || op != dial || !errors.Is(err, stream.Unreachable) || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v does not match its causes", err)
		}

		l := newListing()
		l.change(nil, fmt.Errorf("etcd: %w", context.DeadlineExceeded))
		unread := start(t, Config{Source: l})
		if _, err := ask(t.Context(), unread, hello()); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("unreadable source: %v", err)
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		client.by["server2"] = after(time.Minute, whole)
		slow := start(t, Config{Source: newListing(instances(2)...), Client: client})
		if _, err := ask(ctx, slow, hello()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the caller's own deadline: %v", err)
		}
	})
}

// A closed router and a closed client end a request with the same error.
func TestClosedIsClosed(t *testing.T) {
	c := &stream.Client{}
	c.Close()
	r := start(t, Config{Source: newListing(instance(1)), Client: StreamClient(c)})
	if _, err := ask(t.Context(), r, hello()); !errors.Is(err, ErrClosed) || !errors.Is(err, stream.ErrClosed) {
		t.Errorf("of a closed client: %v", err)
	}
	r.Close()
	if _, err := ask(t.Context(), r, hello()); !errors.Is(err, ErrClosed) || !errors.Is(err, stream.ErrClosed) {
		t.Errorf("of a closed router: %v", err)
	}
}

// New says at once which field is missing.
func TestNewPanics(t *testing.T) {
	source, client := newListing(), &servers{}
	for field, cfg := range map[string]Config{
		"Config.Source":   {Client: client},
		"Config.Client":   {Source: source},
		"Config.Endpoint": {Source: source, Client: client, Reports: discovery.NewRegistry(nil, nil)},
	} {
		func() {
			defer func() {
				if text, _ := recover().(string); !strings.HasPrefix(text, "router: "+field) {
					t.Errorf("%s: panicked with %q", field, text)
				}
			}()
			New(cfg).Close()
		}()
	}
}

// Another transport is routed to where the client is said to reach it; else the error says
// so.
func TestRoutable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := instance(1)
		i.Transport = "http"
		client := &servers{by: map[string]server{"server1": whole}}
		_, err := ask(t.Context(), start(t, Config{Source: newListing(i), Client: client}), hello())
		if want := "no instances found for endpoint dynamo/backend/generate (1 of another transport: http)"; err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		r := start(t, Config{Source: newListing(i), Client: client, Routable: func(i discovery.Instance) bool { return i.Transport == "http" }})
		if got, err := ask(t.Context(), r, hello()); got != "hello" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// An error says who drained, also midway.
func TestAllDrained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &servers{by: map[string]server{"server1": breaking(stream.Draining, 2), "server2": breaking(stream.Draining, 0)}}
		r := start(t, Config{Source: newListing(instances(2)...), Client: client})
		_, err := ask(t.Context(), r, hello())
		none, ok := errors.AsType[*NoInstancesError](err)
		if !ok || none.Refused[stream.Draining] != 2 || none.Tried != 0 || !errors.Is(none, stream.Draining) {
			t.Errorf("%v", err)
		}
	})
}
