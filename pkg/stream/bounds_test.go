package stream_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// from makes a connection seem to come from another address.
type from struct {
	net.Conn
	addr net.Addr
}

func (f from) RemoteAddr() net.Addr { return f.addr }

// dialFrom connects a peer that seems to be at a host.
func (l *pipeListener) dialFrom(t *testing.T, host string) *peer {
	t.Helper()
	ours, theirs := net.Pipe()
	select {
	case l.conns <- from{theirs, &net.TCPAddr{IP: net.ParseIP(host), Port: 1234}}:
	case <-t.Context().Done():
		t.Fatal("the server accepts no connection")
	}
	return newPeer(t, ours)
}

// Requests that the client cancels at once hold their places until their
// handlers return (in CVE-2023-44487, servers forgot about them).
func TestCancelledRequestsAreCounted(t *testing.T) {
	const pairs = 20_000
	for name, tt := range map[string]struct {
		server *stream.Server
		most   int64
	}{
		"MaxStreams":     {&stream.Server{MaxStreams: 10}, 10},
		"MaxConnStreams": {&stream.Server{MaxConnStreams: 20}, 20},
		"by default":     {&stream.Server{}, stream.DefaultMaxConnStreams},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var running, most, ran atomic.Int64
				release := make(chan struct{})
				s := tt.server
				s.Handler = func(context.Context, *stream.Request, func(stream.Annotated) error) error {
					ran.Add(1)
					n := running.Add(1)
					defer running.Add(-1)
					for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
						continue
					}
					<-release // whatever its context says
					return nil
				}
				l := servePipe(t, s)
				conn, err := l.dial(t.Context(), "")
				if err != nil {
					t.Fatal(err)
				}
				p := newPeer(t, conn)
				refused := make(chan int)
				go func() {
					n := 0
					for {
						line, err := p.r.ReadString('\n')
						if err != nil {
							refused <- n
							return
						}
						if strings.Contains(line, `"overloaded"`) {
							n++
						}
					}
				}()
				for i := range pairs {
					p.say(fmt.Sprintf(`{"stream":%d,"data":"x"}`, i), fmt.Sprintf(`{"stream":%d,"event":"cancel"}`, i))
				}
				synctest.Wait()
				if n := int64(s.Streams()); n != tt.most || most.Load() != n || ran.Load() != n {
					t.Errorf("%d requests hold a place, %d handlers ran and %d at once, want %d", n, ran.Load(), most.Load(), tt.most)
				}
				close(release)
				synctest.Wait()
				if n := s.Streams(); n != 0 {
					t.Errorf("%d requests hold a place in the end", n)
				}
				p.Close()
				if n := <-refused; n != pairs-int(tt.most) {
					t.Errorf("%d requests were refused, want %d", n, pairs-tt.most)
				}
			})
		})
	}
}

// One connection cannot take all places, and may take again the ones that it
// gives back.
func TestMaxConnStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		handler, _ := held(release)
		l := servePipe(t, &stream.Server{Handler: handler, MaxConnStreams: 1})
		greedy, other := l.dialFrom(t, "192.0.2.1"), l.dialFrom(t, "192.0.2.1")
		for _, p := range []*peer{greedy, other} {
			p.say(`{"stream":1,"data":"x"}`)
			p.expect(`{"stream":1,"event":"start","id":"0"}`, `{"stream":1,"data":"x"}`)
		}
		const over = `"event":"overloaded","comment":["server is overloaded: 1 streams run on this connection, its limit"]}`
		greedy.say(`{"stream":2,"data":"x"}`, `{"data":"x"}`)
		greedy.expect(`{"stream":2,`+over, `{`+over)
		close(release)
		for _, p := range []*peer{greedy, other} {
			p.expect(`{"stream":1,"event":"end","id":"1"}`)
			p.say(`{"stream":2,"data":"x"}`)
			p.expect(`{"stream":2,"event":"start","id":"0"}`, `{"stream":2,"data":"x"}`, `{"stream":2,"event":"end","id":"1"}`)
		}
	})
}

// One address cannot take all connections. Those from this machine do not
// count.
func TestMaxConnsPerAddr(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler, _ := held(nil)
		l := servePipe(t, &stream.Server{Handler: handler, MaxConnsPerAddr: 2})
		busy := func(host string) *peer {
			p := l.dialFrom(t, host)
			p.say(`{"data":"x"}`)
			return p
		}
		started := []string{`{"event":"start","id":"0"}`, `{"data":"x"}`}
		first := busy("192.0.2.1")
		first.expect(started...)
		busy("::ffff:192.0.2.1").expect(started...) // the same one
		third := l.dialFrom(t, "192.0.2.1")
		third.expect(`{"event":"overloaded","comment":["server has 2 connections from 192.0.2.1, its limit for one address"]}`)
		third.expectEOF()
		busy("192.0.2.2").expect(started...)
		for range 10 {
			busy("127.0.0.1").expect(started...)
			busy("::1").expect(started...)
		}
		first.Close()
		synctest.Wait()
		busy("192.0.2.1").expect(started...)
	})
}

// A connection that sends nothing is cut off; one that has sent a request is
// not.
func TestFirstLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := servePipe(t, echo("server1"))
		spoken, silent, slow := l.dialFrom(t, "192.0.2.1"), l.dialFrom(t, "192.0.2.1"), l.dialFrom(t, "192.0.2.1")
		spoken.say(`{"data":"hi"}`)
		spoken.expect(hi()...)
		begin := time.Now()
		go func() { // a line that takes its time, but comes
			for _, c := range []byte(`{"data":"hi"}` + "\n") {
				_, _ = slow.Write([]byte{c})
				time.Sleep(9 * time.Second)
			}
		}()
		silent.expectEOF()
		if took := time.Since(begin); took != 10*time.Second {
			t.Errorf("cut off after %v, want 10s", took)
		}
		slow.expect(hi()...)
		time.Sleep(time.Hour)
		for _, p := range []*peer{spoken, slow} {
			p.say(`{"data":"hi"}`)
			p.expect(hi()...)
		}
	})
}

// The connection that has been idle for longest makes room for a new one, at
// the limits and when the process is out of descriptors; a busy connection
// stays.
func TestIdleMakesRoom(t *testing.T) {
	full := &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE}
	for name, tt := range map[string]struct {
		server   *stream.Server
		fails    bool // to accept
		stranger bool // a connection of another address has been idle for longest of all
	}{
		"MaxConns":        {server: &stream.Server{MaxConns: 4}},
		"MaxConnsPerAddr": {server: &stream.Server{MaxConnsPerAddr: 4}, stranger: true},
		"EMFILE":          {server: &stream.Server{}, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := tt.server
				s.Handler = stream.Echo("server1", 0)
				release := make(chan struct{})
				s.Admit = func(req stream.Request) error {
					if string(req.Data) == `"wait"` {
						<-release
					}
					return nil
				}
				l := &fullListener{pipeListener: newPipeListener(), err: full}
				serveOn(t, s, l)
				var stranger *peer
				if tt.stranger {
					stranger = l.dialFrom(t, "192.0.2.9")
					stranger.say(`{"data":"hi"}`)
					stranger.expect(hi()...)
				}
				peers := make([]*peer, 4)
				for i := range peers {
					peers[i] = l.dialFrom(t, "192.0.2.1")
					peers[i].say(`{"data":"hi"}`)
					peers[i].expect(hi()...)
					time.Sleep(time.Second)
				}
				peers[0].say(`{"data":"wait"}`) // is busy now
				peers[1].say(`{"data":"hi"}`)   // has not been idle for as long as 2
				peers[1].expect(hi()...)
				time.Sleep(time.Second)
				for _, closed := range []int{2, 3, 1} {
					l.full.Store(tt.fails)
					fresh := l.dialFrom(t, "192.0.2.1")
					fresh.say(`{"data":"hi"}`)
					fresh.expect(hi()...)
					peers[closed].expectEOF()
					fresh.say(`{"data":"wait"}`)
				}
				if !tt.fails { // nobody is idle any more
					fresh := l.dialFrom(t, "192.0.2.1")
					if line := fresh.line(); !strings.HasPrefix(line, `{"event":"overloaded","comment":["server has 4 connections`) {
						t.Errorf("got %s, want overloaded", line)
					}
				}
				close(release)
				peers[0].expect(`{"event":"start","id":"0"}`)
				if tt.stranger {
					stranger.say(`{"data":"hi"}`)
					stranger.expect(hi()...)
				}
			})
		})
	}
}

// fullListener fails once with err when it is set to full.
type fullListener struct {
	*pipeListener
	full atomic.Bool
	err  error
}

func (l *fullListener) Accept() (net.Conn, error) {
	conn, err := l.pipeListener.Accept()
	if err == nil && l.full.CompareAndSwap(true, false) {
		go func() { l.conns <- conn }() // it waits in the backlog
		return nil, l.err
	}
	return conn, err
}

// Two hundred unfinished lines of 1 MiB hold little more memory than they have
// bytes, and give it back.
func TestUnfinishedLinesHoldWhatTheyHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const conns, length = 200, stream.MaxLine - 100
		line := strings.Repeat("x", length)
		l := servePipe(t, echo("server1"))
		peers := make([]*peer, conns)
		before := heap()
		for i := range peers {
			p := l.dialFrom(t, "192.0.2.1")
			peers[i] = p
			go func() { _, _ = io.WriteString(p, line) }()
		}
		synctest.Wait()
		if held := heap() - before; held < conns*length || held > conns*length*3/2 {
			t.Errorf("%d MiB are held for lines of %d MiB", held>>20, conns*length>>20)
		}
		for _, p := range peers {
			p.Close()
		}
		synctest.Wait()
		if held := heap() - before; held > 20<<20 {
			t.Errorf("%d MiB are held for connections that are closed", held>>20)
		}
	})
}

// heap returns how many bytes are in use.
func heap() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// Unfinished lines hold at most MaxUnfinished bytes of a server: a connection
// that exceeds that is refused as overloading it, while idle and small ones go
// on.
func TestMaxUnfinished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 2 << 20
		l := servePipe(t, &stream.Server{Handler: stream.Echo("server1", 0), MaxUnfinished: most})
		small := l.dialFrom(t, "192.0.2.1")
		small.say(`{"data":"hi"}`)
		small.expect(hi()...)
		const begun, length = `{"data":"`, 700_000
		var holding []*holder
		var refused string
		for len(holding) < 100 && refused == "" {
			p := &holder{l.dialFrom(t, "192.0.2.1"), nil}
			said := make(chan string, 1)
			go func() { said <- p.line() }()
			go func() { _, _ = io.WriteString(p, begun+strings.Repeat("x", length)) }()
			synctest.Wait()
			select {
			case refused = <-said:
			default:
				p.said = said
				holding = append(holding, p)
			}
		}
		if held := len(holding) * length; held < most/2 || held > most {
			t.Errorf("%d connections hold %d bytes, want at most %d", len(holding), held, most)
		}
		if refused != `{"event":"overloaded","comment":["server is overloaded: it holds too many bytes of unfinished lines"]}` {
			t.Errorf("the one that went beyond was told %s", refused)
		}
		small.say(`{"data":"hi"}`)
		small.expect(hi()...)
		for _, p := range holding { // what is finished is held no more
			go p.say(`"}`)
			if line := <-p.said; line != `{"event":"start","id":"0"}` {
				t.Errorf("got %.100s, want a start", line)
			}
			go p.hold()
		}
		synctest.Wait()
		p := l.dialFrom(t, "192.0.2.1")
		go p.say(`{"data":"` + strings.Repeat("x", 700_000) + `"}`)
		p.expect(`{"event":"start","id":"0"}`)
	})
}

// holder is a peer with an unfinished line, and what the server tells it.
type holder struct {
	*peer
	said chan string
}

// A server that holds as much as it may accepts no more connections.
func TestMaxUnfinishedRefusesConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := servePipe(t, &stream.Server{Handler: stream.Echo("server1", 0), MaxUnfinished: 1 << 20})
		first := l.dialFrom(t, "192.0.2.1")
		go func() { _, _ = io.WriteString(first, `{"data":"`+strings.Repeat("x", 1_000_000)) }()
		synctest.Wait()
		second := l.dialFrom(t, "192.0.2.1")
		second.expect(`{"event":"overloaded","comment":["server holds too many bytes of unfinished lines"]}`)
		second.expectEOF()
		first.Close()
		synctest.Wait()
		third := l.dialFrom(t, "192.0.2.1")
		third.say(`{"data":"hi"}`)
		third.expect(hi()...)
	})
}
