package cmd

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

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

// TestProbe asks servers of every kind, all at once. No handler hears of it.
func TestProbe(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	counting := func(_ context.Context, req *stream.Request, send func(stream.Annotated) error) error {
		asked.Add(1)
		return send(stream.Annotated{Data: req.Data})
	}
	named := func(name string) *stream.Server {
		s := &stream.Server{Handler: counting, Admit: func(stream.Request) error { asked.Add(1); return nil }}
		s.SetNames(name)
		return s
	}
	dead := listenFor(t)
	dead.Close()
	v := instancesView{Rows: []instanceRow{
		{Name: "sound", Address: serveFor(t, &stream.Server{Handler: counting})},
		{Name: "the one that is meant", Address: serveFor(t, named("a/b/c/1")), to: "a/b/c/1"},
		{Name: "another one", Address: serveFor(t, named("a/b/c/2")), to: "a/b/c/1"},
		{Name: "never accepts", Address: listenFor(t).Addr().String()},
		{Name: "dead", Address: dead.Addr().String()},
		{Name: "no address", Address: "127.0.0.1:none"},
		{Name: "foreign", Address: "127.0.0.1:1"},
	}}
	foreign := &v.Rows[len(v.Rows)-1]
	for i := range v.Rows {
		v.Rows[i].routable = &v.Rows[i] != foreign
	}
	v.probeAll(t.Context(), nil)
	for i, want := range []stream.Kind{
		"", "", stream.Misdirected, stream.Unresponsive, stream.Unreachable, stream.Unreachable,
	} {
		r := v.Rows[i]
		switch {
		case r.Probe == nil:
			t.Errorf("%s was not probed", r.Name)
		case r.Probe.Kind != want || (r.Probe.MS != nil) != (want == "") || (r.Probe.Reason != "") != (want != ""):
			t.Errorf("%s answers %+v, want kind %q", r.Name, r.Probe, want)
		case r.Probe.MS != nil && *r.Probe.MS <= 0:
			t.Errorf("%s answers within %v ms", r.Name, *r.Probe.MS)
		}
	}
	if foreign.Probe != nil {
		t.Errorf("a server that can't be spoken to was probed: %+v", foreign.Probe)
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("%d requests were seen", n)
	}
}

// TestProbeEndsWithItsContext: Ctrl-C does not wait for slow servers.
func TestProbeEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	v := instancesView{Rows: make([]instanceRow, 2*maxProbes)}
	addr := listenFor(t).Addr().String()
	for i := range v.Rows {
		v.Rows[i] = instanceRow{routable: true, Address: addr}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		v.probeAll(ctx, nil)
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("probes whose context has ended go on for a minute")
	}
}
