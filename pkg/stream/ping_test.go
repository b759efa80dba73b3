package stream_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// A server that last wrote at a whole second pings 5 s later, and only while a
// stream runs.
func TestPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ping = `{"event":"ping"}`
		l := servePipe(t, &stream.Server{Handler: stream.Echo("server1", 12*time.Second)})
		conn, err := l.dial(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		p := newPeer(t, conn)
		after := func(want time.Duration, lines ...string) {
			t.Helper()
			begin := time.Now()
			p.expect(lines...)
			if took := time.Since(begin); took != want {
				t.Errorf("%s came after %v, want %v", lines[0], took, want)
			}
		}
		p.say("") // who connects is given a while, and then is left in peace
		time.Sleep(time.Minute)
		for range 2 {
			p.say(`{"stream":1,"data":"hi"}`)
			after(0, `{"stream":1,"event":"start","id":"0"}`, `{"stream":1,"data":"from server: server1, data: h"}`)
			after(5*time.Second, ping)
			after(5*time.Second, ping)
			after(2*time.Second, `{"stream":1,"data":"from server: server1, data: i"}`, `{"stream":1,"event":"end","id":"2"}`)
			time.Sleep(time.Minute) // were there a ping, it would come before the next answer
		}
		p.say(`{"data":"hi"}`, `{"stream":1,"data":"x"}`)
		for range 5 {
			p.line()
		}
		after(5*time.Second, ping)
		after(5*time.Second, ping)
		after(2*time.Second, `{"data":"from server: server1, data: i"}`, `{"event":"end","id":"2"}`)
	})
}

// Anything that is written postpones the next ping.
func TestPingAfterItem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		l := servePipe(t, &stream.Server{Handler: func(_ context.Context, req *stream.Request, send func(stream.Annotated) error) error {
			time.Sleep(3 * time.Second)
			err := send(stream.Annotated{Data: req.Data})
			time.Sleep(12 * time.Second)
			return err
		}})
		conn, err := l.dial(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		p := newPeer(t, conn)
		p.say(`{"data":"x"}`)
		for _, want := range []struct {
			at   time.Duration
			line string
		}{
			{0, `{"event":"start","id":"0"}`}, {3 * time.Second, `{"data":"x"}`}, {8 * time.Second, `{"event":"ping"}`},
			{13 * time.Second, `{"event":"ping"}`}, {15 * time.Second, `{"event":"end","id":"1"}`},
		} {
			p.expect(want.line)
			if at := time.Since(begin); at != want.at {
				t.Errorf("%s came at %v, want %v", want.line, at, want.at)
			}
		}
	})
}

// Connections that fell silent at different times ping together, and none later
// than 5 s after its last line.
func TestPingsTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		l := servePipe(t, &stream.Server{Handler: func(ctx context.Context, _ *stream.Request, _ func(stream.Annotated) error) error {
			<-ctx.Done()
			return ctx.Err()
		}})
		var peers []*peer
		for range 3 {
			time.Sleep(300 * time.Millisecond)
			conn, err := l.dial(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			p := newPeer(t, conn)
			p.say(`{"data":"x"}`)
			p.expect(`{"event":"start","id":"0"}`)
			peers = append(peers, p)
		}
		for _, want := range []time.Duration{5 * time.Second, 10 * time.Second, 15 * time.Second} {
			for i, p := range peers {
				p.expect(`{"event":"ping"}`)
				if at := time.Since(begin); at != want {
					t.Errorf("connection %d pings at %v, want %v", i, at, want)
				}
			}
		}
	})
}
