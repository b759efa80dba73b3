package router

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// onTheWire lets the real client talk to a server that writes the script out in
// bytes. Each visit has an address of its own, by which dial finds it.
func (v *visit) onTheWire(ctx context.Context, req stream.Request) iter.Seq2[stream.Annotated, error] {
	return func(yield func(stream.Annotated, error) bool) {
		if err := pause(ctx, v.lag%time.Microsecond+1); err != nil {
			yield(stream.Annotated{}, err)
			return
		}
		if v.s.servers != nil {
			v.s.wire.Stream(ctx, v.instance.Address, req)(yield)
			return
		}
		addr := v.instance.Address + "/" + req.ID
		v.s.mu.Lock()
		v.s.visits[addr] = v
		v.s.mu.Unlock()
		v.s.wire.Stream(ctx, addr, req)(yield)
	}
}

func (s *sim) dial(ctx context.Context, addr string) (net.Conn, error) {
	s.mu.Lock()
	v := s.visits[addr]
	s.mu.Unlock()
	if v.kind == stream.Unreachable {
		if v.how%2 == 0 {
			<-ctx.Done() // nobody answers
			return nil, ctx.Err()
		}
		if err := pause(ctx, v.lag); err != nil {
			return nil, err
		}
		return nil, syscall.ECONNREFUSED
	}
	client, server := net.Pipe()
	c := &resettable{Conn: client}
	s.wg.Go(func() {
		defer server.Close()
		c.reset.Store(v.serve(server))
	})
	return c, nil
}

// resettable is a connection that may end in a reset.
type resettable struct {
	net.Conn
	reset atomic.Bool
}

func (c *resettable) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if errors.Is(err, io.EOF) && c.reset.Load() {
		err = syscall.ECONNRESET
	}
	return n, err
}

// serve answers one request on a connection, and reports whether that is to end
// in a reset.
func (v *visit) serve(conn net.Conn) (reset bool) {
	lines := bufio.NewReader(conn)
	line, err := lines.ReadString('\n')
	var req struct {
		Stream, From int
		ID           string
	}
	if err != nil || json.Unmarshal([]byte(line), &req) != nil {
		return false
	}
	if req.ID != v.q.id || req.From != v.from {
		v.s.fail("%s: the wire says %s", v.q.id, line)
		return false
	}
	// Until the client cancels the stream or closes the connection.
	ctx, gone := context.WithCancel(context.Background())
	v.s.wg.Go(func() {
		defer gone()
		for {
			line, err := lines.ReadString('\n')
			if err != nil || strings.Contains(line, `"cancel"`) {
				return
			}
		}
	})
	w := &lineWriter{ctx: ctx, w: conn, prefix: fmt.Sprintf(`{"stream":%d,`, req.Stream)}
	v.write(w)
	return v.kind == stream.Reset
}

// write writes the answer as the script has it.
func (v *visit) write(w *lineWriter) {
	w.pause(v.lag)
	if v.kind == stream.Protocol && v.n == 0 && v.how%3 == 0 {
		// It starts elsewhere.
		w.line(`"event":"start","id":"%d"`, v.from+1)
		w.line(`"data":"%s"`, v.q.id)
		return
	}
	unstarted := v.n == 0 && v.how%2 == 0 && v.kind != stream.Stalled
	if unstarted || v.kind == stream.Unresponsive || v.kind == stream.Overloaded {
		if v.breaksOff(w) {
			return // in place of the start
		}
	}
	w.line(`"event":"start","id":"%d"`, v.from)
	for n, item := range v.items[:v.n] {
		if n > 0 {
			w.pause(v.pace)
		}
		w.line(`"data":"%s"`, item)
	}
	w.pause(v.delay)
	if !v.breaksOff(w) {
		w.line(`"event":"end","id":"%d"`, v.count())
	}
}

// count returns the count that the end of the whole answer states.
func (v *visit) count() int { return v.from + len(v.items) }

// breaksOff ends the answer as the script has it, if that is not a good end.
func (v *visit) breaksOff(w *lineWriter) bool {
	switch v.kind {
	case "":
		return false
	case stream.Reset, stream.Unreachable: // that is for the connection
	case stream.Unresponsive, stream.Stalled:
		for w.ctx.Err() == nil {
			// With a bound for items, signs of life do not help.
			if v.kind == stream.Unresponsive || v.s.wire.ItemTimeout > 0 {
				w.write(`{"event":"ping"}` + "\n")
			}
			w.pause(time.Second)
		}
	case stream.Truncated:
		if v.how%3 == 0 {
			w.write(w.prefix + `"data":"half an it`)
		}
	case stream.Failed:
		w.line(`"event":"error","comment":["Stream ended before generation completed"]`)
	case stream.Application:
		w.line(`"event":"error","comment":["no such model"]`)
	case stream.Misdirected, stream.Unresumable, stream.Diverged, stream.Local: // these are scripted without a wire
	case stream.Overloaded, stream.Draining:
		w.line(`"event":"%s"`, v.kind)
	case stream.Protocol:
		v.breakTheRules(w)
	}
	return true
}

// breakTheRules writes what the wire does not allow. Nothing of it may pass for
// an answer, or for a part of one.
func (v *visit) breakTheRules(w *lineWriter) {
	wrong := []func(){
		func() { w.write("\x00\xff}{ no JSON\n") },
		func() { w.line(`"event":"end","id":"%d"`, v.count()+1) },
		func() { w.line(`"event":"end","id":""`) },
		func() { w.line(`"event":"start","id":"%d"`, v.from); w.line(`"event":"start","id":"%d"`, v.from) },
		func() { w.line(`"data":7,"event":"end","id":"many"`) },
		func() { w.write(`{"stream":77,"data":"whose?"}` + "\n") },
	}
	if v.n < len(v.items) {
		// Items are missing, and the count tells.
		wrong = append(wrong[:2], func() { w.line(`"event":"end","id":"%d"`, v.count()) })
	}
	wrong[v.how/6%len(wrong)]()
}

// lineWriter writes lines of one stream until its client has gone.
type lineWriter struct {
	ctx    context.Context
	w      io.Writer
	prefix string
}

func (w *lineWriter) write(s string) {
	if w.ctx.Err() == nil {
		_, _ = io.WriteString(w.w, s) // who has gone does not read
	}
}

func (w *lineWriter) line(format string, args ...any) {
	w.write(w.prefix + fmt.Sprintf(format, args...) + "}\n")
}

func (w *lineWriter) pause(d time.Duration) { _ = pause(w.ctx, d) }
