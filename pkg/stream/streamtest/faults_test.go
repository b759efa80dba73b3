package streamtest_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/request-migration/migrate/pkg/stream"
	"github.com/request-migration/migrate/pkg/stream/fault"
	"github.com/request-migration/migrate/pkg/stream/streamtest"
)

// A client in memory sees each fault as it would on a socket.
func TestFaults(t *testing.T) {
	for kind, want := range map[fault.Kind]stream.Kind{
		fault.Error: stream.Failed, fault.Close: stream.Truncated, fault.Reset: stream.Reset, fault.Stall: stream.Stalled,
		fault.Garbage: stream.Protocol, fault.HalfLine: stream.Truncated, fault.NoEnd: stream.Truncated,
		fault.BadCount: stream.Protocol, fault.Refuse: stream.Truncated, fault.Overload: stream.Overloaded,
	} {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var network streamtest.Network
				faulty := fault.Inject(stream.Echo("server1", 0), fault.Fault{Mode: fault.Always, Kind: kind, After: 2})
				server := &stream.Server{Handler: faulty.Handle, Admit: faulty.Admit}
				defer server.Close()
				l := network.Listen("server1:1")
				go func() { _ = server.Serve(l) }() // until Close
				client := &stream.Client{Dial: network.Dial}
				defer client.Close()
				var last error
				for _, err := range client.Stream(t.Context(), "server1:1", stream.Request{Data: stream.String("hello")}) {
					last = err
				}
				if !errors.Is(last, want) {
					t.Errorf("the stream ended with %v, want %v", last, want)
				}
			})
		})
	}
}
