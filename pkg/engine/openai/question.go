package openai

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/request-migration/migrate/pkg/internal/rawjson"
	"github.com/request-migration/migrate/pkg/stream"
)

// The paths whose answers are divided into items of text. Those of others pass
// as they are.
const (
	chatPath        = "/v1/chat/completions"
	completionsPath = "/v1/completions"
	modelsPath      = "/v1/models"
)

// question is what a request asks of the engine.
type question struct {
	path  string
	body  object
	model string // the engine's own id; "" if there is none
	kind  Kind
	// What the client asked for itself, and gets. What only this package asked
	// for is taken out of the answer.
	wantsUsage, wantsUsageAlways, wantsTimings, wantsProgress bool
	// passesUsage says that usage is passed on, if the engine gives any.
	passesUsage bool
}

// readQuestion reads a request's data. An error is the request's own.
func (e *Engine) readQuestion(ctx context.Context, req *stream.Request) (*question, error) {
	q, err := parseQuestion(req)
	if err != nil {
		return nil, err
	}
	known := e.ask(ctx)
	q.kind = known.kind
	name := q.body.Str("model")
	if name == "" {
		name = modelOfRecord(req.To)
	}
	q.model = cmp.Or(known.id(name), name)
	if q.model == "" && len(known.models) > 0 {
		q.model = known.models[0].ID
	}
	if q.model != "" && (q.body["model"] == nil || q.body.Str("model") != q.model) {
		q.body["model"] = stream.String(q.model)
	}
	options := q.body.Sub("stream_options")
	q.wantsUsage, q.wantsUsageAlways = options.Yes("include_usage"), options.Yes("continuous_usage_stats")
	q.passesUsage = q.wantsUsage || req.Headers[UsageHeader] != ""
	q.wantsTimings, q.wantsProgress = q.body.Yes("timings_per_token"), q.body.Yes("return_progress")
	return q, nil
}

func parseQuestion(req *stream.Request) (*question, error) {
	if rawjson.IsString(req.Data) {
		message := object{"role": stream.String("user"), "content": req.Data}
		return &question{path: chatPath, body: object{"messages": rawjson.Join([]rawMessage{message.Bytes()})}}, nil
	}
	const want = `want a string, or an object with "path" and "body"`
	data, err := rawjson.Read(req.Data)
	if err != nil {
		return nil, errors.New("reading the request: " + want)
	}
	q := &question{path: data.Str("path"), body: data.Sub("body")}
	switch {
	case q.path == "" || q.body == nil:
		return nil, errors.New("reading the request: " + want)
	case !strings.HasPrefix(q.path, "/v1/") || strings.ContainsAny(q.path, "?#\\") || strings.Contains(q.path, ".."):
		return nil, fmt.Errorf("reading the request: %q is no path of the API", q.path)
	}
	return q, nil
}

// modelOfRecord returns the model that a record is of; "" if it is of none.
func modelOfRecord(record string) string {
	parts := strings.Split(record, "/")
	if len(parts) != 4 || parts[2] != EndpointName {
		return ""
	}
	name, err := ModelName(parts[1])
	if err != nil {
		return ""
	}
	return name
}

// textField is the name of the field in which chunks have their text.
func (q *question) textField() string {
	if q.path == chatPath {
		return "content"
	}
	return "text"
}

// whole reports whether the answer passes as it is: engines do not stream what
// such requests ask for, or it is not divided into text.
func (q *question) whole() bool {
	if q.path != chatPath && q.path != completionsPath {
		return true
	}
	for _, m := range q.body.List("modalities") {
		if string(m) == `"audio"` {
			return true
		}
	}
	return q.body.Has("prompt_logprobs") || q.body.Yes("return_meta_info")
}

// choices returns how many answers are asked for.
func (q *question) choices() int {
	n, ok := q.body.Int("n")
	if !ok || n < 1 {
		n = 1
	}
	if q.path != completionsPath {
		return n
	}
	prompts := q.body.List("prompt")
	if len(prompts) == 0 || !rawjson.IsString(prompts[0]) && prompts[0][0] != '[' {
		return n // one text, or the ids of one
	}
	return n * len(prompts)
}

// streamed returns the body with the fields that make the engine stream, and say
// what this package wants to know. plain leaves stream_options out.
func (q *question) streamed(body object, plain bool) object {
	body["stream"] = rawjson.Bool(true)
	if plain {
		delete(body, "stream_options")
		return body
	}
	options := q.body.Sub("stream_options")
	if options == nil {
		options = object{}
	}
	options["include_usage"] = rawjson.Bool(true)
	q.kind.extend(body, options)
	body["stream_options"] = options.Bytes()
	return body
}

// The headers of a request that go on to the engine, in lower case.
func passesOn(name string) bool {
	switch name {
	case "traceparent", "tracestate", "baggage", "x-request-id", "x-session-id", "anthropic-version", "anthropic-beta":
		return true
	}
	return false
}

// header returns the header for the engine.
func (c *call) header() http.Header {
	h := http.Header{"Content-Type": {"application/json"}, "Accept": {"text/event-stream, application/json"}}
	if c.req.ID != "" {
		h.Set("X-Request-Id", c.req.ID)
	}
	for name, value := range c.req.Headers {
		if passesOn(name) {
			h.Set(name, value)
		}
	}
	c.e.authorize(h)
	return h
}

// post sends a body to the engine. The answer has status 200; every other one is
// an [*engineError].
func (c *call) post(ctx context.Context, body object) (*http.Response, error) {
	resp, err := c.e.http.do(ctx, http.MethodPost, c.e.at(c.q.path), c.header(), body.Bytes())
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close() //nolint:errcheck // it was read
		return nil, readError(resp)
	}
	return resp, nil
}

func (f *engineError) Error() string { return f.text() }

// at returns the URL of a path at the engine.
func (e *Engine) at(path string) string {
	u := *e.base
	u.Path += path
	return u.String()
}

// firstItemTimeout returns for how long a request may wait for its first text.
func (e *Engine) firstItemTimeout(q *question) time.Duration {
	if len(e.cfg.FirstItemTimeouts) > 0 {
		for _, name := range append(e.known.names(q.model), q.model) {
			if d := e.cfg.FirstItemTimeouts[name]; d > 0 {
				return d
			}
		}
	}
	return e.cfg.FirstItemTimeout
}

// UsageHeader in [stream.Request.Headers] makes usage an item of the answer though the client
// has not asked for it. Unlike stream_options.include_usage it asks nothing of an
// engine that does not know that.
const UsageHeader = "x-migrate-usage"

// EndpointName is the last part of the endpoint of a model:
// NAMESPACE/MODEL/openai.
const EndpointName = "openai"

// Component returns the name of a model as the middle part of an endpoint: what
// cannot stand there is percent-encoded, and nothing else.
func Component(model string) string {
	const hex = "0123456789ABCDEF"
	if model == "." || model == ".." {
		return strings.ReplaceAll(model, ".", "%2E")
	}
	var b strings.Builder
	for _, r := range model {
		if r > ' ' && r != '/' && r != '%' && r != 0x7f && !isSpaceOrControl(r) {
			b.WriteRune(r)
			continue
		}
		for _, c := range []byte(string(r)) {
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}

// ModelName returns the model that a component stands for.
func ModelName(component string) (string, error) {
	name, err := url.PathUnescape(component)
	if err != nil {
		return "", fmt.Errorf("model %q: %w", component, err)
	}
	return name, nil
}
