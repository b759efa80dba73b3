package stream_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/request-migration/migrate/pkg/stream"
)

// A server survives clients that do not speak the wire, and serves the others.
func TestServerGarbage(t *testing.T) {
	s := echo("server1")
	addr := serve(t, s)
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		b := make([]byte, 1+r.IntN(50_000))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		p := dialPeer(t, addr)
		go func() {
			_, _ = p.Write(b) // it may be cut off
			p.Close()
		}()
		p.hold()
	}
	c := newClient(t, &stream.Client{})
	if got, err := collect(t, c, addr, text("hello")); got != "hello" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if n := s.Streams(); n != 0 {
		t.Errorf("%d streams run", n)
	}
}

// A client that sends and never reads is not read from either: what waits for
// it stays bounded, whatever it asks.
func TestClientNeverReads(t *testing.T) {
	refuse := func(stream.Request) error { return stream.ErrOverloaded }
	for name, tt := range map[string]struct {
		admit func(stream.Request) error
		line  string
	}{
		"refused":    {refuse, `{"stream":%d,"data":""}`},
		"empty":      {nil, `{"stream":%d,"data":""}`},
		"unnumbered": {nil, `{"data":"","n":%d}`},
		"bad lines":  {nil, `{"x":%d}`},
		"no JSON":    {nil, `}%d`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := servePipe(t, &stream.Server{Handler: stream.Echo("server1", 0), Admit: tt.admit})
				conn, err := l.dial(t.Context(), "")
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				var sent atomic.Int64
				go func() {
					for n := 0; ; n++ {
						if _, err := fmt.Fprintf(conn, tt.line+"\n", n); err != nil {
							return
						}
						sent.Add(1)
					}
				}()
				synctest.Wait()
				if n := sent.Load(); n == 0 || n > 10_000 {
					t.Errorf("server took %d lines from a client that reads none", n)
				}
			})
		})
	}
}

// A handler waits for a client that does not read, and little memory waits with
// it.
func TestHandlerWaitsForReader(t *testing.T) {
	for _, line := range []string{`{"data":"x"}`, `{"stream":1,"data":"x"}`} {
		synctest.Test(t, func(t *testing.T) {
			var sent atomic.Int64
			item := stream.Annotated{Data: stream.String(strings.Repeat("x", 1000))}
			l := servePipe(t, &stream.Server{Handler: func(_ context.Context, _ *stream.Request, send func(stream.Annotated) error) error {
				for {
					if err := send(item); err != nil {
						return err
					}
					sent.Add(int64(len(item.Data)))
				}
			}})
			conn, err := l.dial(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			newPeer(t, conn).say(line)
			synctest.Wait()
			// One buffer is being written while another one fills.
			if n := sent.Load(); n < 60<<10 || n > 130<<10 {
				t.Errorf("%s: %d bytes wait for a client that does not read, want 64 KiB or twice that", line, n)
			}
		})
	}
}
