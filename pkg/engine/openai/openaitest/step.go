package openaitest

import (
	"fmt"
	"net"
	"net/http"
	"time"
)

// A Step is a part of an answer, or of a misbehaviour. It reports false if nothing
// may follow.
type Step func(w *Wire) bool

// Wire is where an answer goes.
type Wire struct {
	Request Request
	w       http.ResponseWriter
	r       *http.Request
	begun   bool
}

// begin sends the header of a stream.
func (w *Wire) begin() {
	if !w.begun {
		w.begun = true
		w.w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		w.w.WriteHeader(http.StatusOK)
	}
}

// send sends bytes at once.
func (w *Wire) send(s string) bool {
	w.begin()
	if _, err := w.w.Write([]byte(s)); err != nil {
		return false
	}
	return http.NewResponseController(w.w).Flush() == nil && w.r.Context().Err() == nil
}

// wait waits, and reports false if the client left meanwhile.
func (w *Wire) wait(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-w.r.Context().Done():
		return false
	}
}

// Raw sends each piece as it is, in a TCP segment of its own.
func Raw(pieces ...string) Step {
	return func(w *Wire) bool {
		for _, p := range pieces {
			if !w.send(p) {
				return false
			}
		}
		return true
	}
}

// Events sends each as the data of an event.
func Events(data ...string) Step {
	return func(w *Wire) bool {
		for _, d := range data {
			if !w.send("data: " + d + "\n\n") {
				return false
			}
		}
		return true
	}
}

// Content sends chunks with text.
func Content(texts ...string) Step {
	return func(w *Wire) bool {
		for _, t := range texts {
			if !w.send("data: " + Chunk(fmt.Sprintf(`{"content":%q}`, t), "null") + "\n\n") {
				return false
			}
		}
		return true
	}
}

// Finish sends the chunk with a finish_reason and [DONE].
func Finish(reason string) Step {
	return Events(Chunk(`{}`, fmt.Sprintf("%q", reason)), "[DONE]")
}

// Chunk returns a chunk of a chat with that delta and finish_reason, as JSON.
func Chunk(delta, finish string) string {
	return `{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"test-model",` +
		`"choices":[{"index":0,"delta":` + delta + `,"logprobs":null,"finish_reason":` + finish + `}]}`
}

// Status answers with a status, a body and headers, which are names and values
// by turns.
func Status(status int, body string, headers ...string) Step {
	return func(w *Wire) bool {
		w.w.Header().Set("Content-Type", "application/json")
		for i := 0; i+1 < len(headers); i += 2 {
			w.w.Header().Set(headers[i], headers[i+1])
		}
		w.w.WriteHeader(status)
		_, err := w.w.Write([]byte(body))
		return err == nil
	}
}

// Cut closes the connection in the middle of the body.
func Cut() Step {
	return func(*Wire) bool { panic(http.ErrAbortHandler) }
}

// Reset resets the connection. It closes one that is no TCP connection.
func Reset() Step {
	return func(w *Wire) bool {
		c, _, err := http.NewResponseController(w.w).Hijack()
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetLinger(0) // without it the close is orderly
		}
		c.Close()
		return false
	}
}

// Hang does nothing until the client leaves.
func Hang() Step {
	return func(w *Wire) bool {
		w.begin()
		_ = http.NewResponseController(w.w).Flush() // the client may have left
		<-w.r.Context().Done()
		return false
	}
}

// Silent is Hang before any byte of the answer.
func Silent() Step {
	return func(w *Wire) bool {
		<-w.r.Context().Done()
		return false
	}
}

// WaitFor waits until the channel is closed.
func WaitFor(c <-chan struct{}) Step {
	return func(w *Wire) bool {
		select {
		case <-c:
			return true
		case <-w.r.Context().Done():
			return false
		}
	}
}
