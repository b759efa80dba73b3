// Package openaitest has a provider for tests: an OpenAI-compatible server that
// answers as one of the engines does, or misbehaves as it is told.
package openaitest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A Provider is a server in this process. Set its fields before [Provider.Start];
// the functions among them may be called for many requests at once.
type Provider struct {
	// OwnedBy is what the models say of their owner: "vllm", "sglang",
	// "llamacpp", "library" for Ollama, or anything else. It decides which fields
	// the provider knows and how it tells of progress.
	OwnedBy string
	// Models are the ids. Nil means "test-model". SetModels changes them.
	Models []string
	// Aliases are those of the first model.
	Aliases []string
	// Tokens are the answer. An empty one makes no chunk: engines hold the bytes
	// of unfinished characters back.
	Tokens []string
	// Reasoning comes before the answer.
	Reasoning []string
	// Calls are chunks' deltas, as JSON, that come after the answer.
	Calls []string
	// Strict refuses fields that OpenAI's own API does not have, with 422.
	Strict bool
	// Slots is how many requests are worked on at once; others wait. 0 means all.
	Slots int
	// Pace is how long a token takes.
	Pace time.Duration
	// Misbehave, if set, is asked for each request for text. It returns steps to take
	// in place of the answer, behind its first tokens; nil to behave.
	Misbehave func(r Request) (after int, steps []Step)
	// Health answers a question about health; 200 if it is nil. Until it returns the
	// answer waits.
	Health func(ctx context.Context) int
	// Missing is a path that is not there.
	Missing string
	// IdleTimeout is after which time idle connections are closed. 0 means never.
	IdleTimeout time.Duration
	// InMemory makes connections with net.Pipe, for synctest. Use Dial.
	InMemory bool

	mu       sync.Mutex
	requests []Request
	models   []string
	paths    []string
	gone     int // requests whose client left before the end
	server   *http.Server
	listener net.Listener
	pipes    chan net.Conn // nil while stopped
	conns    map[net.Conn]http.ConnState
	slots    chan struct{}
	addr     string
	serving  sync.WaitGroup
	changed  chan struct{} // closed when requests or gone change
}

// Request is a request that the provider got.
type Request struct {
	// Number counts from 1.
	Number int
	Time   time.Time // when it came
	Path   string
	Header http.Header
	Body   map[string]json.RawMessage
}

// Field returns a field of the body as JSON; "" if it is not there.
func (r Request) Field(name string) string { return string(r.Body[name]) }

// LastMessage returns the role and the content of the last message.
func (r Request) LastMessage() (role, content string) {
	var messages []struct{ Role, Content string }
	if json.Unmarshal(r.Body["messages"], &messages) != nil || len(messages) == 0 {
		return "", ""
	}
	last := messages[len(messages)-1]
	return last.Role, last.Content
}

// Start starts the provider, at the same address if it was stopped.
func (p *Provider) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server != nil {
		return errors.New("starting a provider: it runs")
	}
	if p.models == nil {
		p.models = p.Models
		if p.models == nil {
			p.models = []string{"test-model"}
		}
	}
	if p.changed == nil {
		p.changed = make(chan struct{})
	}
	if p.Slots > 0 {
		p.slots = make(chan struct{}, p.Slots)
	}
	p.conns = map[net.Conn]http.ConnState{}
	if p.InMemory {
		p.pipes = make(chan net.Conn)
		p.listener = &pipeListener{conns: p.pipes, closed: make(chan struct{})}
		p.addr = "provider:80"
	} else {
		addr := p.addr
		if addr == "" {
			addr = "127.0.0.1:0"
		}
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
		if err != nil {
			return fmt.Errorf("starting a provider: %w", err)
		}
		p.listener, p.addr = l, l.Addr().String()
	}
	server := &http.Server{
		Handler: http.HandlerFunc(p.serve), IdleTimeout: p.IdleTimeout, ReadHeaderTimeout: time.Minute,
		ConnState: p.note,
	}
	p.server = server
	l := p.listener
	p.serving.Go(func() { _ = server.Serve(l) }) // until it is stopped
	return nil
}

// URL returns the base URL.
func (p *Provider) URL() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return "http://" + p.addr
}

// Dial connects to a provider that is InMemory.
func (p *Provider) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	p.mu.Lock()
	pipes, l := p.pipes, p.listener
	p.mu.Unlock()
	if pipes == nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	mine, its := net.Pipe()
	select {
	case pipes <- its:
		return mine, nil
	case <-l.(*pipeListener).closed:
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Stop closes the listener and every connection, as a process that is killed does.
func (p *Provider) Stop() {
	p.mu.Lock()
	server := p.server
	p.server, p.pipes = nil, nil
	p.mu.Unlock()
	if server != nil {
		_ = server.Close() // what it closes is of no further use
	}
	p.serving.Wait()
}

// CloseIdle closes idle connections, as servers do after a while.
func (p *Provider) CloseIdle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c, state := range p.conns {
		if state == http.StateIdle {
			c.Close()
		}
	}
}

// note keeps what state a connection is in.
func (p *Provider) note(c net.Conn, state http.ConnState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch state {
	case http.StateClosed, http.StateHijacked:
		delete(p.conns, c)
	default:
		p.conns[c] = state
	}
	p.tell()
}

// tell wakes those who wait for a change. The caller holds mu.
func (p *Provider) tell() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// Wait returns once cond holds. It is asked again whenever a request comes, its
// client leaves, or a connection changes. An error says that ctx ended.
func (p *Provider) Wait(ctx context.Context, cond func() bool) error {
	for {
		p.mu.Lock()
		changed := p.changed
		p.mu.Unlock()
		if cond() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Requests returns the requests for text so far.
func (p *Provider) Requests() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.requests)
}

// Forget drops the requests so far, and the paths.
func (p *Provider) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests, p.paths = nil, nil
}

// Paths returns the paths of all requests so far.
func (p *Provider) Paths() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.paths)
}

// Gone returns how many requests were given up by their client.
func (p *Provider) Gone() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gone
}

// Idle returns how many connections are idle.
func (p *Provider) Idle() int { return p.count(http.StateIdle) }

// Busy returns on how many connections a request runs.
func (p *Provider) Busy() int { return p.count(http.StateActive) }

func (p *Provider) count(state http.ConnState) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, s := range p.conns {
		if s == state {
			n++
		}
	}
	return n
}

// SetModels changes the list of models.
func (p *Provider) SetModels(ids ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.models = ids
}

// serve answers a request.
func (p *Provider) serve(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.paths = append(p.paths, r.URL.Path)
	p.mu.Unlock()
	switch r.URL.Path {
	case p.Missing:
		http.NotFound(w, r)
	case "/health", "/ready":
		w.WriteHeader(p.health(r.Context()))
	case "/v1/models":
		if status := p.health(r.Context()); status != http.StatusOK {
			w.WriteHeader(status)
			return
		}
		p.listModels(w)
	default:
		p.serveText(w, r)
	}
}

func (p *Provider) health(ctx context.Context) int {
	if p.Health == nil {
		return http.StatusOK
	}
	return p.Health(ctx)
}

func (p *Provider) listModels(w http.ResponseWriter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	type model struct {
		ID      string   `json:"id"`
		Object  string   `json:"object"`
		OwnedBy string   `json:"owned_by"`
		Aliases []string `json:"aliases,omitempty"`
	}
	list := struct {
		Object string  `json:"object"`
		Data   []model `json:"data"`
	}{"list", []model{}}
	for i, id := range p.models {
		m := model{id, "model", p.OwnedBy, nil}
		if i == 0 {
			m.Aliases = p.Aliases
		}
		list.Data = append(list.Data, m)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(list) // a client that left
}

// serveText answers a request for text, or for anything else.
func (p *Provider) serveText(w http.ResponseWriter, r *http.Request) {
	req := Request{Time: time.Now(), Path: r.URL.Path, Header: r.Header.Clone()}
	data, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(data, &req.Body)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	req.Number = len(p.requests) + 1
	p.requests = append(p.requests, req)
	slots := p.slots
	p.tell()
	p.mu.Unlock()
	done := false
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !done && r.Context().Err() != nil {
			p.gone++
		}
		p.tell()
	}()
	if slots != nil {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		case <-r.Context().Done():
			return
		}
	}
	after, steps := 0, []Step(nil)
	if p.Misbehave != nil {
		after, steps = p.Misbehave(req)
	}
	wire := &Wire{w: w, r: r, Request: req}
	if steps == nil || after > 0 {
		limit := -1
		if steps != nil {
			limit = after
		}
		if !p.answer(wire, limit) {
			return
		}
	}
	for _, step := range steps {
		if !step(wire) {
			return
		}
	}
	done = true
}

// pipeListener accepts connections that were made with net.Pipe.
type pipeListener struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "provider:80" }

// known are fields of OpenAI's own API; a strict server knows no others.
func unknownField(body map[string]json.RawMessage) string {
	known := strings.Fields(`model messages prompt stream stream_options max_tokens max_completion_tokens temperature top_p n stop
		seed logprobs top_logprobs response_format tools tool_choice presence_penalty frequency_penalty echo suffix best_of user`)
	for name := range body {
		if !slices.Contains(known, name) {
			return name
		}
	}
	return ""
}
