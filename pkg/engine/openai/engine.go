package openai

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// The defaults of a [Config]'s bounds.
const (
	// DefaultFirstItemTimeout leaves room for a long prompt and a queue.
	DefaultFirstItemTimeout = 2 * time.Minute
	DefaultItemTimeout      = 30 * time.Second
)

// Reasoning says what becomes of a request whose engine broke when nothing but
// reasoning had gone out.
type Reasoning string

// The ways to treat such a request.
const (
	// ReasoningRestart asks the original request again. Its reasoning follows the
	// old one behind a blank line.
	ReasoningRestart Reasoning = "restart"
	// ReasoningFail refuses to carry it on.
	ReasoningFail Reasoning = "fail"
)

// ParseReasoning returns the way of that name. The error lists the valid ones.
func ParseReasoning(name string) (Reasoning, error) {
	return parse("way to treat reasoning", name, ReasoningRestart, ReasoningFail)
}

// ToolCalls says when tool calls go out.
type ToolCalls string

// The ways to pass tool calls on.
const (
	// ToolCallsHold holds them back until they are complete, so that a break
	// inside one loses nothing.
	ToolCallsHold ToolCalls = "hold"
	// ToolCallsStream passes each piece on at once. An answer of which a piece
	// went out cannot be carried on.
	ToolCallsStream ToolCalls = "stream"
)

// ParseToolCalls returns the way of that name. The error lists the valid ones.
func ParseToolCalls(name string) (ToolCalls, error) {
	return parse("way to treat tool calls", name, ToolCallsHold, ToolCallsStream)
}

// parse returns the one of the valid values that has that name.
func parse[T ~string](what, name string, valid ...T) (T, error) {
	if slices.Contains(valid, T(name)) {
		return T(name), nil
	}
	names := make([]string, 0, len(valid))
	for _, v := range valid {
		names = append(names, string(v))
	}
	return "", fmt.Errorf("unknown %s %q, want one of %s", what, name, strings.Join(names, ", "))
}

// Config says which engine it is and how it is treated. URL is required.
type Config struct {
	// URL is the engine's base URL, with or without /v1 at its end.
	URL string
	// Kind is the kind of engine. "" asks the engine.
	Kind Kind
	// ResumeByPrefix vouches that the engine continues a trailing assistant
	// message, and a prompt, also if it is of a kind that is not known to.
	ResumeByPrefix bool
	// Models picks models of the engine by name, id or alias. Empty means all.
	Models []Pick
	// FirstItemTimeout is how long a request may wait for its first text or call.
	// 0 means [DefaultFirstItemTimeout].
	FirstItemTimeout time.Duration
	// FirstItemTimeouts are those of single models, by the model's name.
	FirstItemTimeouts map[string]time.Duration
	// ItemTimeout is how long it may wait for each further one. The time in which
	// the client does not read is not counted. 0 means [DefaultItemTimeout].
	ItemTimeout time.Duration
	// Reasoning is [ReasoningRestart] if empty, ToolCalls [ToolCallsHold].
	Reasoning Reasoning
	ToolCalls ToolCalls
	// Key, if set, returns the key that the engine wants, and is asked for each
	// request. Clients' own keys are never sent to an engine.
	Key func() string
	// Health is the path at which the engine is asked how it is. "" means the
	// kind's own; [HealthOff] means that it is not asked.
	Health string
	// Dial connects to the engine. Nil stands for a [net.Dialer].
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Logger gets warnings and errors about the engine. Nil logs nothing.
	Logger *slog.Logger
}

// An Engine is an OpenAI-compatible server. Its methods are safe for concurrent
// use, [Engine.Watch] excepted, of which one may run at a time.
type Engine struct {
	cfg  Config
	base *url.URL
	log  *slog.Logger
	http *client

	known     knownModels
	lastGot   atomic.Int64 // when a stream of the engine last got text or a call, in ns since birth
	birth     time.Time
	plain     atomic.Bool // the engine refuses stream_options
	check     chan struct{}
	lastReads sync.WaitGroup // of connections that are read to their end, for reuse
}

// New returns the engine that cfg describes. It asks nothing yet. An error is a
// mistake in cfg.
func New(cfg Config) (*Engine, error) {
	base, err := baseURL(cfg.URL)
	if err != nil {
		return nil, err
	}
	cfg.FirstItemTimeout = cmp.Or(cfg.FirstItemTimeout, DefaultFirstItemTimeout)
	cfg.ItemTimeout = cmp.Or(cfg.ItemTimeout, DefaultItemTimeout)
	cfg.Reasoning = cmp.Or(cfg.Reasoning, ReasoningRestart)
	cfg.ToolCalls = cmp.Or(cfg.ToolCalls, ToolCallsHold)
	e := &Engine{
		cfg: cfg, base: base, log: cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler)),
		http: newClient(cfg.Dial), birth: time.Now(), check: make(chan struct{}, 1),
	}
	e.known.wanted = make(chan struct{}, 1)
	return e, nil
}

// baseURL returns an engine's address without the /v1 at its end.
func baseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, fmt.Errorf("engine %q: want a URL such as http://127.0.0.1:8000: %w", s, errors.Unwrap(err))
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("engine %q: want a URL such as http://127.0.0.1:8000", s)
	case u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return nil, fmt.Errorf("engine %q: a base URL has neither a user nor a query", s)
	}
	u.Path = strings.TrimSuffix(strings.TrimRight(u.Path, "/"), "/v1")
	u.RawPath = ""
	return u, nil
}

// Close closes kept connections and waits until they are. Requests that run go on.
func (e *Engine) Close() {
	e.lastReads.Wait()
	e.http.close()
}

// Handle answers a request. It is a [stream.Handler].
//
// The request's data is a string, a user's message, or an object with "path" and
// "body", an HTTP request of the OpenAI API; its model is the one that
// [stream.Request.To] names if the body has none. A request with
// [stream.Request.Prefix] is continued; [stream.ErrUnresumable] says that it can't
// be, and why.
func (e *Engine) Handle(ctx context.Context, req *stream.Request, send func(stream.Annotated) error) error {
	c, err := e.newCall(ctx, req, send)
	switch {
	case err != nil:
		return err
	case !c.q.whole():
		return c.answer()
	case len(req.Prefix) > 0:
		return refuse(stream.ErrUnresumable, "an answer of %s cannot be carried on once something was delivered", c.q.path)
	}
	return c.pass()
}

func (e *Engine) newCall(ctx context.Context, req *stream.Request, send func(stream.Annotated) error) (*call, error) {
	q, err := e.readQuestion(ctx, req)
	if err != nil {
		return nil, err
	}
	so, err := readPrefix(req)
	if err != nil {
		return nil, err
	}
	return &call{e: e, ctx: ctx, req: req, q: q, so: so, send: send}, nil
}

// call is one request that runs at the engine.
type call struct {
	e     *Engine
	ctx   context.Context // the client's
	req   *stream.Request
	q     *question
	so    soFar
	send  func(stream.Annotated) error
	clock *clock
	items int // sent on this stream
}

// begin starts the clock, and returns the context for the request to the engine.
// It ends with the client's until keep is called, and with cancel.
func (c *call) begin() (ctx context.Context, cancel context.CancelCauseFunc, keep func() bool) {
	ctx, cancel = context.WithCancelCause(context.WithoutCancel(c.ctx))
	keep = context.AfterFunc(c.ctx, func() { cancel(c.ctx.Err()) })
	c.clock = startClock(cancel, c.e.firstItemTimeout(c.q), c.e.cfg.ItemTimeout)
	return ctx, cancel, keep
}

// put sends an item. The item clock stands still meanwhile.
func (c *call) put(a stream.Annotated) error {
	c.clock.pause()
	err := c.send(a)
	c.clock.resume()
	if err == nil {
		c.items++
	}
	return err
}

// got notes that the engine has given text or a call.
func (c *call) got() {
	c.clock.got()
	c.e.lastGot.Store(int64(time.Since(c.e.birth)))
}

// ended returns why nothing more comes from the engine, given the error with
// which reading ended.
func (c *call) ended(ctx context.Context, err error) error {
	switch {
	case errors.Is(context.Cause(ctx), errSilent):
		return c.silent()
	case c.ctx.Err() != nil:
		return c.ctx.Err()
	}
	c.e.askNow()
	return refuse(stream.ErrFailed, "the engine's answer broke: %v", err)
}

// silent returns what follows from the engine's silence.
func (c *call) silent() error {
	since, limit, first := c.clock.silence()
	switch {
	case !first:
		return refuse(stream.ErrFailedSilent, "no further text from the engine for %v", limit)
	case c.e.lastGot.Load() >= int64(since.Sub(c.e.birth)) && c.e.lastGot.Load() > 0:
		return refuse(stream.ErrOverloaded, "no first text from the engine for %v, while other streams got some: it is busy", limit)
	}
	return refuse(stream.ErrFailedSilent, "no first text from the engine for %v", limit)
}

// authorize adds what each request to the engine has.
func (e *Engine) authorize(header http.Header) {
	header.Set("Accept-Encoding", "identity")
	if e.cfg.Key != nil {
		if key := e.cfg.Key(); key != "" {
			header.Set("Authorization", "Bearer "+key)
		}
	}
}
