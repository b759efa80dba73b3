package gateway

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/engine/openai"
	"github.com/request-migration/migrate/pkg/internal/rawjson"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/stream"
)

// maxAnyModels is how many models that nobody lists are remembered. Names come from clients.
const maxAnyModels = 1000

// endpoint is where a model is listed.
func endpoint(namespace, name string) discovery.Endpoint {
	return discovery.Endpoint{Namespace: namespace, Component: openai.Component(name), Name: openai.EndpointName}
}

// A model is what requests ask for, with the router to its instances.
type model struct {
	name   string
	router *router.Router
}

// models are those that were ever listed: one without an instance is still known.
type models struct {
	g *Gateway

	mu      sync.Mutex
	byName  map[string]*model
	listed  map[string]bool // now
	changed chan struct{}   // closed, and made anew, with listed
	any     int             // how many nobody has listed
	heard   bool            // discovery has spoken
	trouble error           // why it can't be read now
	closed  bool
}

func (m *models) init(g *Gateway) {
	m.g, m.byName, m.listed, m.changed = g, map[string]*model{}, map[string]bool{}, make(chan struct{})
}

// follow keeps the models current until ctx ends.
func (m *models) follow(ctx context.Context) {
	for set, err := range m.g.cfg.Registry.WatchNamespace(ctx, m.g.cfg.Namespace) {
		if err != nil {
			if ctx.Err() == nil {
				m.g.log.Error("the models cannot be read", "err", err)
				m.mu.Lock()
				m.trouble = err
				m.mu.Unlock()
			}
			return
		}
		m.set(set)
	}
}

func (m *models) set(set discovery.Instances) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heard, m.trouble = true, set.Stale
	m.listed = make(map[string]bool)
	for _, i := range set.List {
		if i.Endpoint.Name != openai.EndpointName {
			continue
		}
		name, err := openai.ModelName(i.Endpoint.Component)
		if err != nil || m.listed[name] {
			continue
		}
		m.listed[name] = true
		if m.byName[name] == nil {
			m.add(name, m.g.cfg.Registry)
			m.g.log.Info("model is served", "model", name)
		}
	}
	close(m.changed)
	m.changed = make(chan struct{})
}

// add starts the router of a model. m.mu is held.
func (m *models) add(name string, source router.Source) *model {
	cfg := m.g.cfg
	added := &model{name: name}
	if m.closed {
		return nil
	}
	rc := router.Config{
		Endpoint: endpoint(cfg.Namespace, name), Source: source, Client: cfg.Client, Picker: cfg.Picker(),
		Attempts: cfg.Attempts, Cooldown: cfg.Cooldown, Panic: true, Logger: cfg.Logger,
	}
	if source == router.Source(cfg.Registry) {
		rc.Reports = cfg.Registry
	}
	if cfg.Engines != nil {
		rc.Routable = isEngine
	}
	added.router = router.New(rc)
	m.byName[name] = added
	return added
}

// find returns the model of that name or alias; nil if nobody knows it.
func (m *models) find(name string) *model {
	if to, ok := m.g.cfg.Aliases[name]; ok {
		name = to
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if known := m.byName[name]; known != nil {
		return known
	}
	if !m.g.cfg.AnyModel || name == "" || m.any >= maxAnyModels {
		return nil
	}
	m.any++
	return m.add(name, m.g.cfg.Engines.source(name))
}

// settling is how long a new gateway waits for a model that a request asks for: discovery may
// not have spoken, and engines may not have answered.
const settling = 5 * time.Second

// await is find, but that a gateway which has just started waits for the model to be listed.
func (m *models) await(ctx context.Context, name string) *model {
	settled := time.NewTimer(time.Until(m.g.began.Add(settling)))
	defer settled.Stop()
	for {
		m.mu.Lock()
		changed := m.changed
		m.mu.Unlock()
		if found := m.find(name); found != nil || time.Since(m.g.began) >= settling {
			return found
		}
		select {
		case <-changed:
		case <-settled.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// chain returns the models that are asked for one, in order, each once.
func (m *models) chain(first *model) []*model {
	chain := []*model{first}
	for name := first.name; ; {
		next, ok := m.g.cfg.Fallbacks[name]
		if !ok {
			next, ok = m.g.cfg.Fallbacks["*"]
		}
		if !ok {
			return chain
		}
		to := m.find(next)
		if to == nil || slices.Contains(chain, to) {
			return chain
		}
		chain, name = append(chain, to), to.name
	}
}

// inModels returns a text of the routers that a request for a model has reached in the words of
// clients, who know models and no endpoints.
func (m *models) inModels(text string, first *model) string {
	for _, one := range m.chain(first) {
		text = strings.ReplaceAll(text, "endpoint "+endpoint(m.g.cfg.Namespace, one.name).String(), "model "+one.name)
	}
	return text
}

// notReady says why no request can be served; "" if one can.
func (m *models) notReady() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case !m.heard && m.trouble != nil:
		return "discovery cannot be read: " + m.trouble.Error()
	case !m.heard:
		return "discovery has not spoken yet"
	case len(m.listed) == 0:
		return "no model has an instance"
	}
	return ""
}

// names returns the models with an instance, sorted, and all that are known.
func (m *models) names() (listed []string, known []*model) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.listed {
		listed = append(listed, name)
	}
	for _, k := range m.byName {
		known = append(known, k)
	}
	slices.Sort(listed)
	slices.SortFunc(known, func(a, b *model) int { return strings.Compare(a.name, b.name) })
	return listed, known
}

func (m *models) close() {
	m.mu.Lock()
	m.closed = true
	all := m.byName
	m.byName = map[string]*model{}
	m.mu.Unlock()
	for _, k := range all {
		k.router.Close()
	}
}

// entry is a model in OpenAI's list.
func listEntry(name string) rawjson.Object {
	return rawjson.Object{
		"id": stream.String(name), "object": stream.String("model"), "created": rawjson.Number(0), "owned_by": stream.String("migrate"),
	}
}

// listModels answers GET /v1/models.
func (g *Gateway) listModels(w http.ResponseWriter, _ *http.Request) {
	listed, _ := g.models.names()
	for alias, to := range g.cfg.Aliases {
		if slices.Contains(listed, to) {
			listed = append(listed, alias)
		}
	}
	slices.Sort(listed)
	list := make([]json.RawMessage, 0, len(listed))
	for _, name := range slices.Compact(listed) {
		list = append(list, listEntry(name).Bytes())
	}
	writeJSON(w, http.StatusOK, rawjson.Object{"object": stream.String("list"), "data": rawjson.Join(list)}.Bytes())
}

// showModel answers GET /v1/models/{id}.
func (g *Gateway) showModel(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("id")
	if g.models.find(name) == nil {
		g.unknownModel(name).write(w)
		return
	}
	writeJSON(w, http.StatusOK, listEntry(name).Bytes())
}
