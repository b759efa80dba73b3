package gateway

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"

	"github.com/request-migration/migrate/pkg/engine/openai"
	"github.com/request-migration/migrate/pkg/internal/rawjson"
	"github.com/request-migration/migrate/pkg/stream"
)

const (
	chatPath        = "/v1/chat/completions"
	completionsPath = "/v1/completions"
	messagesPath    = "/v1/messages"
)

// maxID is how long an id of a client's request may be, in bytes.
const maxID = 128

// query is what a client asks.
type query struct {
	id      string
	path    string
	body    rawjson.Object
	model   string // as the client calls it
	key     string // of the session
	headers map[string]string

	streamed   bool
	wantsUsage bool
	whole      bool // engines do not stream the answer: it passes as it is
}

// readQuery reads a request. An error is the client's.
func (g *Gateway) readQuery(w http.ResponseWriter, r *http.Request) (*query, *apiError) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, g.cfg.MaxBody))
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, &apiError{status: http.StatusRequestEntityTooLarge, kind: "invalid_request_error", code: "request_too_large",
			message: fmt.Sprintf("the body has more than %d bytes, the limit of this gateway", tooLarge.Limit)}
	}
	if err != nil {
		return nil, &apiError{status: http.StatusBadRequest, kind: "invalid_request_error", code: "unreadable", message: "reading the body: " + err.Error()}
	}
	object, err := rawjson.Read(body)
	if err != nil {
		return nil, &apiError{status: http.StatusBadRequest, kind: "invalid_request_error", code: "invalid_json", message: "the body is no JSON object: " + err.Error()}
	}
	q := &query{
		id: requestID(r), path: r.URL.Path, body: object, model: object.Str("model"), headers: passOn(r.Header),
		streamed: object.Yes("stream"), wantsUsage: object.Sub("stream_options").Yes("include_usage"),
	}
	q.key = sessionKey(r.Header, object)
	q.whole = q.path != chatPath && q.path != completionsPath || object.Has("prompt_logprobs") || object.Yes("return_meta_info")
	for _, m := range object.List("modalities") {
		q.whole = q.whole || string(m) == `"audio"`
	}
	if q.model == "" {
		return nil, &apiError{status: http.StatusBadRequest, kind: "invalid_request_error", code: "no_model", message: `the body has no "model"`}
	}
	return q, nil
}

// requestID returns the client's id of a request, if it is one, or a new one.
func requestID(r *http.Request) string {
	id := r.Header.Get("X-Request-Id")
	odd := func(c rune) bool { return c <= ' ' || c > '~' }
	if id != "" && len(id) <= maxID && !strings.ContainsFunc(id, odd) {
		return id
	}
	return "req_" + rand.Text()
}

// passOn returns the headers that go to the engine.
func passOn(h http.Header) map[string]string {
	on := map[string]string{openai.UsageHeader: "1"}
	for _, name := range []string{"Traceparent", "Tracestate", "Baggage", "X-Session-Id", "Anthropic-Version", "Anthropic-Beta"} {
		if value := h.Get(name); value != "" {
			on[strings.ToLower(name)] = value
		}
	}
	return on
}

// sessionKey returns what tells the session of a request: what the client says, or else how
// it begins, since that is what an engine has cached.
func sessionKey(h http.Header, body rawjson.Object) string {
	if session := h.Get("X-Session-Id"); session != "" {
		return session
	}
	for _, field := range []string{"session_id", "prompt_cache_key"} {
		if session := body.Str(field); session != "" {
			return session
		}
	}
	hash := sha256.New()
	for _, field := range []string{"system", "instructions", "prompt", "input"} {
		hash.Write(body[field])
	}
	for _, raw := range body.List("messages") {
		hash.Write(raw)
		if message, err := rawjson.Read(raw); err == nil && message.Str("role") == "user" {
			break
		}
	}
	return hex.EncodeToString(hash.Sum(nil)[:16])
}

// data returns what an engine of a model is asked.
func (q *query) data(model string) json.RawMessage {
	body := maps.Clone(q.body)
	body["model"] = stream.String(model)
	return rawjson.Object{"path": stream.String(q.path), "body": body.Bytes()}.Bytes()
}
