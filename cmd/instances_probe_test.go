package cmd

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

// serveFor serves requests at a loopback address and returns it.
func serveFor(t *testing.T, s *stream.Server) string {
	t.Helper()
	l := listenFor(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l) // ends with Close
	}()
	t.Cleanup(func() {
		s.Close()
		<-done
	})
	return l.Addr().String()
}

func listenFor(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// TestProbe asks servers of every kind, all at once.
func TestProbe(t *testing.T) {
	t.Parallel()
	failing := func(err error) stream.Handler {
		return func(context.Context, stream.Request, func(stream.Annotated) error) error { return err }
	}
	dead := listenFor(t)
	dead.Close()
	rows := []instanceRow{
		{Name: "sound", Address: serveFor(t, &stream.Server{Handler: stream.Echo("s", 0)})},
		{Name: "another application", Address: serveFor(t, &stream.Server{Handler: failing(errors.New("no such model"))})},
		{Name: "breaks", Address: serveFor(t, &stream.Server{Handler: failing(stream.ErrBroken)})},
		{Name: "overloaded", Address: serveFor(t, &stream.Server{
			Handler: failing(nil), Admit: func(stream.Request) error { return stream.ErrOverloaded },
		})},
		{Name: "slow", Address: serveFor(t, &stream.Server{
			Handler: func(ctx context.Context, _ stream.Request, _ func(stream.Annotated) error) error {
				<-ctx.Done()
				return ctx.Err()
			},
		})},
		{Name: "never accepts", Address: listenFor(t).Addr().String()},
		{Name: "dead", Address: dead.Addr().String()},
		{Name: "no address", Address: "127.0.0.1:none"},
		{Name: "foreign", Address: "127.0.0.1:1", Transport: "tcp"},
	}
	for i := range rows {
		if rows[i].Transport == "" {
			rows[i].Transport = discovery.NDJSON
		}
	}
	began := time.Now()
	probeAll(t.Context(), rows, nil)
	// Generous: what is tested is that they do not wait for each other.
	if took := time.Since(began); took > 2*probeTimeout {
		t.Errorf("all probes took %v", took)
	}
	for i, want := range []stream.Kind{
		"", "", stream.Failed, stream.Overloaded, stream.Stalled, stream.Unresponsive, stream.Unreachable, stream.Unreachable,
	} {
		r := rows[i]
		switch {
		case r.Probe == nil:
			t.Errorf("%s was not probed", r.Name)
		case r.Probe.Kind != want || (r.Probe.MS != nil) != (want == "") || (r.Probe.Reason != "") != (want != ""):
			t.Errorf("%s answers %+v, want kind %q", r.Name, r.Probe, want)
		case r.Probe.MS != nil && *r.Probe.MS <= 0:
			t.Errorf("%s answers within %v ms", r.Name, *r.Probe.MS)
		}
	}
	if foreign := rows[len(rows)-1]; foreign.Probe != nil {
		t.Errorf("a server that can't be spoken to was probed: %+v", foreign.Probe)
	}
}

// TestProbeEndsWithItsContext: Ctrl-C does not wait for slow servers.
func TestProbeEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	began := time.Now()
	rows := make([]instanceRow, 2*maxProbes)
	addr := listenFor(t).Addr().String()
	for i := range rows {
		rows[i] = instanceRow{Transport: discovery.NDJSON, Address: addr}
	}
	probeAll(ctx, rows, nil)
	if took := time.Since(began); took > probeTimeout {
		t.Errorf("the probes took %v", took)
	}
}
