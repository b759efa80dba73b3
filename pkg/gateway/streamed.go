package gateway

import (
	"bytes"
	"encoding/json"
	"maps"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/request-migration/migrate/pkg/engine/openai"
	"github.com/request-migration/migrate/pkg/internal/rawjson"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/stream"
)

// text answers a request for text, streamed or not.
func (g *Gateway) text(w http.ResponseWriter, r *http.Request) {
	g.serve(w, r, func(q *query, a *answer) sink {
		switch {
		case q.whole:
			return newPassed(w, q)
		case q.streamed:
			return &streamed{events: newEvents(w, q), q: q, a: a}
		}
		return &collected{w: w, q: q, a: a}
	})
}

// serve reads a request, and answers it by way of the sink that open returns.
func (g *Gateway) serve(w http.ResponseWriter, r *http.Request, open func(*query, *answer) sink) {
	if g.refuses() {
		w.Header().Set("Connection", "close")
		judge(errLeaving).write(w)
		return
	}
	q, wrong := g.readQuery(w, r)
	if wrong != nil {
		wrong.write(w)
		return
	}
	w.Header().Set("X-Request-Id", q.id)
	first := g.models.await(r.Context(), q.model)
	if first == nil {
		g.unknownModel(q.model).write(w)
		return
	}
	if what := q.kept(); what != "" && len(first.router.Tiers().Source) > 1 {
		(&apiError{status: http.StatusBadRequest, kind: "invalid_request_error", code: "kept_by_engine",
			message: what + " refers to what one engine keeps, and the model " + first.name + " has several"}).write(w)
		return
	}
	key, _ := r.Context().Value(keyName{}).(string)
	entry := &Entry{ID: q.id, Key: key, Path: q.path, Asked: q.model, Streamed: q.streamed, Time: time.Now(), began: time.Now()}
	a := &answer{chat: q.path == chatPath, model: first.name}
	err := g.run(r, q, first, a, open(q, a), entry)
	entry.Took = time.Since(entry.began)
	if g.cfg.Done != nil {
		g.cfg.Done(entry)
	}
	if err != nil {
		// The client must not take what it has for the whole.
		panic(http.ErrAbortHandler)
	}
}

// events writes server-sent events, and a ping when nothing was written for a while.
type events struct {
	w   http.ResponseWriter
	out *http.ResponseController

	pinging *time.Timer // nil if nothing is to ping

	mu    sync.Mutex // guards what follows, and the writing
	begun bool
	ended bool
	wrote time.Time
	limit time.Time // of the write deadline that is set
	buf   []byte
}

// newEvents returns the events of an answer. They ping until end is called, if the client waits
// for a stream.
func newEvents(w http.ResponseWriter, q *query) *events {
	e := &events{w: w, out: http.NewResponseController(w), wrote: time.Now()}
	if q.streamed {
		e.pinging = time.AfterFunc(math.MaxInt64, e.ping)
		e.pinging.Reset(pingEvery) // not before pinging is set
	}
	return e
}

// ping is called by the timer. It does not set that anew for each event: it looks at when
// something was last written.
func (e *events) ping() {
	if !e.mu.TryLock() {
		e.pinging.Reset(pingEvery) // something is being written
		return
	}
	defer e.mu.Unlock()
	if e.ended {
		return
	}
	next := time.Until(e.wrote.Add(pingEvery))
	if next <= 0 {
		_ = e.writeLocked([]byte(": ping\n\n")) // what comes next says that the client has gone
		next = pingEvery
	}
	e.pinging.Reset(next)
}

// end ends the pings. Nothing is written behind it.
func (e *events) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = true
	if e.pinging != nil {
		e.pinging.Stop()
	}
}

// stopPinging ends the pings, and reports whether the status has gone out.
func (e *events) stopPinging() (begun bool) {
	e.end()
	return e.hasBegun()
}

// from says which instance answers, as long as that can be said.
func (e *events) from(instance string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.begun {
		e.w.Header().Set("X-Migrate-Instance", instance)
	}
}

// hasBegun reports whether the status has gone out.
func (e *events) hasBegun() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.begun
}

// write sends bytes at once.
func (e *events) write(b []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.writeLocked(b)
}

func (e *events) writeLocked(b []byte) error {
	if !e.begun {
		e.begun = true
		h := e.w.Header()
		h.Set("Content-Type", "text/event-stream; charset=utf-8")
		h.Set("Cache-Control", "no-cache")
		h.Set("X-Accel-Buffering", "no") // nginx would collect events
		e.w.WriteHeader(http.StatusOK)
	}
	e.wrote = time.Now()
	if e.limit.Sub(e.wrote) < writeTimeout/2 { // not for each event: that takes as long as the write
		e.limit = e.wrote.Add(writeTimeout)
		_ = e.out.SetWriteDeadline(e.limit) // where there is none, the server has others
	}
	if _, err := e.w.Write(b); err != nil {
		return err
	}
	return e.out.Flush()
}

// data sends an event.
func (e *events) data(data json.RawMessage) error {
	e.buf = append(append(append(e.buf[:0], "data: "...), data...), "\n\n"...)
	return e.write(e.buf)
}

// comment sends a comment, which clients skip.
func (e *events) comment(text []byte) error {
	e.buf = append(append(append(e.buf[:0], ": "...), text...), "\n\n"...)
	return e.write(e.buf)
}

// streamed is the answer of a client that reads along.
type streamed struct {
	*events
	q    *query
	a    *answer
	role bool // the role was sent
	gave bool // a part of the answer was sent
	// front and back are what a chunk of text has around its text, for the model and the id.
	front, back []byte
	frontOf     string
}

func (s *streamed) object() string {
	if s.a.chat {
		return "chat.completion.chunk"
	}
	return "text_completion"
}

func (s *streamed) anew() {}

func (s *streamed) item(i router.Item, migrated *Migration) (delivered bool, err error) {
	if migrated != nil {
		err = s.comment(append([]byte("migrated "), migrated.json()...))
	}
	if err == nil {
		err = s.send(i)
	}
	return s.gave, err
}

// send sends what an item says.
func (s *streamed) send(i router.Item) error {
	if !s.gave {
		s.from(i.Peer.Name)
	}
	switch i.Event {
	case openai.EventHead:
		s.a.head(i.Data)
		s.frontOf = "" // the fingerprint may be another
		return nil
	case "":
		return s.content(s.a.text(i.Data))
	case openai.EventReasoning:
		text, field := s.a.thought(i.Data)
		return s.delta(rawjson.Object{field: text})
	case openai.EventChunk:
		return s.chunk(i.Data)
	}
	return nil
}

// content sends a chunk of text. It is what nearly all chunks are, so what they have in common
// is made once.
func (s *streamed) content(text json.RawMessage) error {
	if err := s.beginRole(); err != nil {
		return err
	}
	if s.frontOf != s.a.model {
		s.frontOf = s.a.model
		const mark = "@TEXT@"
		choice := rawjson.Object{"index": rawjson.Number(0), "finish_reason": json.RawMessage("null"), "logprobs": json.RawMessage("null")}
		if s.a.chat {
			choice["delta"] = json.RawMessage(`{"content":` + mark + `}`)
		} else {
			choice["text"] = json.RawMessage(mark)
		}
		o := s.a.named(s.q.id, s.object())
		o["choices"] = rawjson.Join([]json.RawMessage{choice.Bytes()})
		s.front, s.back, _ = bytes.Cut(o.Bytes(), []byte(mark))
	}
	s.gave = true
	s.buf = append(append(s.buf[:0], "data: "...), s.front...)
	s.buf = append(append(append(s.buf, text...), s.back...), "\n\n"...)
	return s.write(s.buf)
}

// delta sends a chunk whose first choice has that delta.
func (s *streamed) delta(delta rawjson.Object) error {
	if err := s.beginRole(); err != nil {
		return err
	}
	return s.choice(delta)
}

func (s *streamed) choice(delta rawjson.Object) error {
	choice := rawjson.Object{"index": rawjson.Number(0), "delta": delta.Bytes(), "finish_reason": json.RawMessage("null"), "logprobs": json.RawMessage("null")}
	o := s.a.named(s.q.id, s.object())
	o["choices"] = rawjson.Join([]json.RawMessage{choice.Bytes()})
	s.gave = true
	return s.data(o.Bytes())
}

// beginRole sends the role of an answer to a chat, once.
func (s *streamed) beginRole() error {
	if s.role || !s.a.chat {
		return nil
	}
	s.role = true
	return s.choice(rawjson.Object{"role": stream.String("assistant"), "content": stream.String("")})
}

// chunk sends any other chunk.
func (s *streamed) chunk(data json.RawMessage) error {
	chunk, err := rawjson.Read(data)
	if err != nil || !s.a.chunkUsage(chunk, s.q.wantsUsage) {
		return nil //nolint:nilerr // the engine's handler makes no such items
	}
	if len(chunk.List("choices")) > 0 {
		if err := s.beginRole(); err != nil {
			return err
		}
	}
	maps.Copy(chunk, s.a.named(s.q.id, s.object()))
	s.gave = true
	return s.data(chunk.Bytes())
}

func (s *streamed) end(failed *apiError) error {
	defer s.events.end()
	switch {
	case failed == nil:
		if usage := s.a.missing(); usage != nil && s.q.wantsUsage {
			o := s.a.named(s.q.id, s.object())
			o["choices"], o["usage"] = json.RawMessage("[]"), usage.Bytes()
			if err := s.data(o.Bytes()); err != nil {
				return err
			}
		}
		return s.write([]byte("data: [DONE]\n\n"))
	case !s.stopPinging():
		failed.write(s.w)
		return nil
	}
	_ = s.data(rawjson.Object{"error": failed.inStream()}.Bytes()) // the connection is aborted all the same
	return failed
}
