package gateway

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/router"
)

// The defaults of a [Config].
const (
	DefaultAttempts    = 3
	DefaultWaitRestore = 30 * time.Second
	// DefaultMaxBody leaves room for images, and is below what a record of an engine allows.
	DefaultMaxBody = 24 << 20
)

const (
	// pingEvery is how long a client that waits hears nothing: proxies often give up after 30
	// or 60 s of silence.
	pingEvery = 15 * time.Second
	// writeTimeout is how long a client may take no byte of what is sent to it.
	writeTimeout = time.Minute
)

// StillTaken is how long a gateway that leaves goes on taking requests: until whoever sends
// them has heard that it is not ready any more.
const StillTaken = 5 * time.Second

// Config says what a [Gateway] serves. Engines must be set, or else Namespace, Registry and
// Client; every other zero value is useful.
type Config struct {
	// Namespace is where models are listed, as NAMESPACE/MODEL/openai.
	Namespace string
	// Registry lists the instances of each model, and shares reports about them.
	Registry *discovery.Registry
	// Client opens streams at the instances.
	Client router.Client
	// Engines are in this process, and stand in for Namespace, Registry and Client.
	Engines *Engines
	// AnyModel sends a request for a model that nobody lists to all Engines. Without it, such a
	// request is answered with 404.
	AnyModel bool
	// Picker returns the picker of one model. Nil is [router.Affinity].
	Picker func() router.Picker
	// Attempts and Cooldown are those of each model's router; 0 means [DefaultAttempts] and
	// [router.DefaultCooldown].
	Attempts int
	Cooldown time.Duration
	// WaitRestore is how long an answer of which the client has a part, or a request that is
	// not streamed, waits for an instance when none is left. 0 means [DefaultWaitRestore],
	// less than 0 not at all.
	WaitRestore time.Duration
	// MaxBody is how many bytes the body of a request may have. 0 means [DefaultMaxBody].
	MaxBody int64
	// Aliases are further names of models.
	Aliases map[string]string
	// Fallbacks say which model answers when nobody is left for one; "*" is for all others.
	Fallbacks map[string]string
	// Keys are those that clients must have one of. Without any, nobody needs one.
	Keys []Key
	// Origins are those of pages elsewhere that may ask, as in "https://example.com".
	Origins []string
	// Done, if set, is called once for each request to a model, when it is over. It must be
	// safe for concurrent use.
	Done func(*Entry)
	// Logger gets migrations and trouble. Nil discards.
	Logger *slog.Logger
}

// A Gateway is an [http.Handler] for OpenAI clients. It is safe for concurrent use.
type Gateway struct {
	cfg    Config
	log    *slog.Logger
	models models
	recent recent
	mux    *http.ServeMux

	ctx      context.Context
	end      context.CancelCauseFunc
	watching sync.WaitGroup
	leaving  atomic.Int64 // when Leave was called, in ns since began; 0 if it was not
	began    time.Time
}

// errLeaving ends the requests that still run when a gateway closes.
var errLeaving = errors.New("the gateway is shutting down")

// New starts a gateway. Close ends it. It panics if a field of cfg that must be set is not.
func New(cfg Config) *Gateway {
	if e := cfg.Engines; e != nil {
		cfg.Namespace, cfg.Registry, cfg.Client = e.namespace, e.registry, e
	}
	switch {
	case cfg.Namespace == "":
		panic("gateway: Config.Namespace is empty")
	case cfg.Registry == nil:
		panic("gateway: Config.Registry is nil")
	case cfg.Client == nil:
		panic("gateway: Config.Client is nil")
	case cfg.AnyModel && cfg.Engines == nil:
		panic("gateway: Config.AnyModel without Engines")
	}
	cfg.Attempts = cmp.Or(cfg.Attempts, DefaultAttempts)
	cfg.Cooldown = cmp.Or(cfg.Cooldown, router.DefaultCooldown)
	cfg.WaitRestore = cmp.Or(cfg.WaitRestore, DefaultWaitRestore)
	cfg.MaxBody = cmp.Or(cfg.MaxBody, DefaultMaxBody)
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	if cfg.Picker == nil {
		cfg.Picker = router.Affinity
	}
	g := &Gateway{cfg: cfg, log: cfg.Logger, began: time.Now()}
	g.models.init(g)
	g.ctx, g.end = context.WithCancelCause(context.Background())
	g.mux = g.routes()
	g.watching.Go(func() { g.models.follow(g.ctx) })
	return g
}

// Leave makes the gateway unready. Requests are taken for 5 s more, and those that run go on.
func (g *Gateway) Leave() { g.leaving.CompareAndSwap(0, int64(time.Since(g.began))) }

// Close ends the requests that still run, with an error in their streams, and the gateway's
// routers. The caller waits for its HTTP server to be done with the requests.
func (g *Gateway) Close() {
	g.Leave()
	g.end(errLeaving)
	g.watching.Wait()
	g.models.close()
}

// refuses reports whether the gateway takes no more requests.
func (g *Gateway) refuses() bool {
	at := g.leaving.Load()
	return at != 0 && time.Since(g.began)-time.Duration(at) >= StillTaken
}

// ServeHTTP implements [http.Handler].
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) { g.mux.ServeHTTP(w, r) }

// routes returns what is served where.
func (g *Gateway) routes() *http.ServeMux {
	mux := http.NewServeMux()
	for _, path := range []string{chatPath, completionsPath} {
		mux.HandleFunc("POST "+path, g.guard(g.text))
	}
	for _, path := range []string{"/v1/responses", messagesPath, messagesPath + "/count_tokens", "/v1/embeddings", "/v1/rerank", "/v1/score"} {
		mux.HandleFunc("POST "+path, g.guard(g.pass))
	}
	mux.HandleFunc("GET /v1/models", g.guard(g.listModels))
	mux.HandleFunc("GET /v1/models/{id...}", g.guard(g.showModel))
	mux.HandleFunc("OPTIONS /", g.guard(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	mux.HandleFunc("GET /readyz", g.ready)
	alive := func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok\n") }
	mux.HandleFunc("GET /healthz", alive)
	mux.HandleFunc("GET /health", alive)
	mux.HandleFunc("GET /{$}", g.page)
	mux.HandleFunc("GET /status", g.guard(g.status))
	mux.HandleFunc("/", g.guard(func(w http.ResponseWriter, r *http.Request) {
		(&apiError{status: http.StatusNotFound, kind: "invalid_request_error", code: "unknown_url",
			message: "there is no " + r.Method + " " + r.URL.Path + " here: this gateway serves /v1/chat/completions, /v1/completions, /v1/models, and passes on /v1/responses, /v1/messages, /v1/embeddings, /v1/rerank and /v1/score"}).write(w)
	}))
	return mux
}

// ready says whether requests are to be sent here.
func (g *Gateway) ready(w http.ResponseWriter, _ *http.Request) {
	why := g.models.notReady()
	switch {
	case g.leaving.Load() != 0:
		why = errLeaving.Error()
	case g.cfg.Engines != nil && !g.cfg.Engines.wereAsked():
		why = "not every engine was asked yet"
	}
	if why != "" {
		writeText(w, http.StatusServiceUnavailable, why+"\n")
		return
	}
	writeText(w, http.StatusOK, "ready\n")
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	writeWhole(w, status, []byte(text))
}

// writeWhole writes all of an answer.
func writeWhole(w http.ResponseWriter, status int, body []byte) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout)) // a real connection has one
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that has gone
}
