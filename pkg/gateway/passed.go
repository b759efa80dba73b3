package gateway

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/request-migration/migrate/pkg/engine/openai"
	"github.com/request-migration/migrate/pkg/internal/rawjson"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/stream"
)

// pass answers a request whose answer passes as it is.
func (g *Gateway) pass(w http.ResponseWriter, r *http.Request) {
	g.serve(w, r, func(q *query, _ *answer) sink { return newPassed(w, q) })
}

// keptByEngine returns what in a request refers to something that one engine keeps; "" if nothing does.
func (q *query) keptByEngine() string {
	for _, field := range []string{"previous_response_id", "conversation"} {
		if q.body.Has(field) {
			return field
		}
	}
	if q.body.Yes("background") {
		return "background"
	}
	return ""
}

// passed is an answer that passes as it is: event by event, or whole.
type passed struct {
	*events
	q        *query
	status   int
	header   rawjson.Object
	body     bytes.Buffer // of an answer that is no stream, until it is whole
	streams  bool
	event    []byte // that is not complete yet
	gave     bool
	instance string
}

func newPassed(w http.ResponseWriter, q *query) *passed {
	q.whole = true
	return &passed{events: newEvents(w, q), q: q}
}

func (p *passed) anew() { *p = passed{events: p.events, q: p.q} }

func (p *passed) item(i router.Item, _ *Migration) (delivered bool, err error) {
	p.instance = i.Peer.Name
	o, err := rawjson.Read(i.Data)
	if err != nil {
		return p.gave, nil //nolint:nilerr // the engine's handler makes no such items
	}
	switch i.Event {
	case openai.EventResponse:
		if status, ok := o.Int("status"); ok {
			p.status, p.header = status, o.Sub("headers")
			p.streams = strings.HasPrefix(p.header.Str("Content-Type"), "text/event-stream")
		}
		p.body.WriteString(o.Str("body"))
	case openai.EventSSE:
		err = p.sse(o)
	}
	return p.gave, err
}

// sse sends an event, or a part of one.
func (p *passed) sse(o rawjson.Object) error {
	if !p.gave {
		p.from(p.instance)
	}
	if len(p.event) == 0 {
		if event := o.Str("event"); event != "" {
			p.event = append(append(append(p.event, "event: "...), event...), '\n')
		}
		p.event = append(p.event, "data: "...)
	}
	p.event = append(p.event, strings.ReplaceAll(o.Str("data"), "\n", "\ndata: ")...)
	if o.Yes("more") {
		return nil
	}
	p.gave = true
	p.event = append(p.event, "\n\n"...)
	defer func() { p.event = p.event[:0] }()
	return p.write(p.event)
}

func (p *passed) end(failed *apiError) error {
	begun := p.stopPinging()
	switch {
	case failed != nil && !begun:
		failed.write(p.w)
		return nil
	case failed != nil:
		_ = p.write(p.failure(failed)) // the connection is aborted all the same
		return failed
	case p.streams || begun:
		return p.write(nil)
	}
	for name := range p.header {
		p.w.Header().Set(name, p.header.Str(name))
	}
	p.w.Header().Set("X-Request-Id", p.q.id)
	p.w.Header().Set("X-Migrate-Instance", p.instance)
	writeWhole(p.w, p.status, p.body.Bytes())
	return nil
}

// failure returns an error as the protocol of the path has it in a stream.
func (p *passed) failure(failed *apiError) []byte {
	var data json.RawMessage
	switch {
	case strings.HasPrefix(p.q.path, messagesPath):
		inner := rawjson.Object{"type": stream.String("api_error"), "message": stream.String(failed.message)}
		data = rawjson.Object{"type": stream.String("error"), "error": inner.Bytes()}.Bytes()
	case p.q.path == "/v1/responses":
		data = rawjson.Object{"type": stream.String("error"), "code": stream.String(failed.code), "message": stream.String(failed.message), "param": json.RawMessage("null")}.Bytes()
	default:
		return append(append([]byte("data: "), rawjson.Object{"error": failed.inStream()}.Bytes()...), "\n\n"...)
	}
	return append(append([]byte("event: error\ndata: "), data...), "\n\n"...)
}
