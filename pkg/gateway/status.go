package gateway

import (
	_ "embed"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

//go:embed page.html
var pageHTML []byte

const (
	maxMigrations = 50  // that are shown
	maxRunning    = 200 // requests that are shown
)

// recent is what runs now, and the last migrations. The zero value has none.
type recent struct {
	mu         sync.Mutex
	running    map[*running]bool
	migrations []Migration
}

// running is a request that runs.
type running struct {
	ID    string    `json:"id"`
	Model string    `json:"model"`
	Since time.Time `json:"since"`
}

func (r *recent) begin(q *query) *running {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running == nil {
		r.running = make(map[*running]bool)
	}
	one := &running{ID: q.id, Model: q.model, Since: time.Now()}
	r.running[one] = true
	return one
}

func (r *recent) end(one *running) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.running, one)
}

func (r *recent) migrated(m Migration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.migrations = append(r.migrations, m)
	if n := len(r.migrations) - maxMigrations; n > 0 {
		r.migrations = slices.Delete(r.migrations, 0, n)
	}
}

// page answers GET /.
func (g *Gateway) page(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	writeWhole(w, http.StatusOK, pageHTML)
}

// modelStatus is a model on the page.
type modelStatus struct {
	Name      string           `json:"name"`
	Instances []instanceStatus `json:"instances"`
}

type instanceStatus struct {
	Name    string    `json:"name"`
	ID      string    `json:"id"`
	Avail   bool      `json:"avail"`
	Streams int       `json:"streams"`
	Trial   bool      `json:"half_open,omitempty"`
	Why     string    `json:"why,omitempty"`
	Until   time.Time `json:"until,omitzero"`
}

// engineStatus is an engine that takes no requests, and has no instance.
type engineStatus struct {
	Name string `json:"name"`
	Why  string `json:"why"`
}

// status answers GET /status, for the page.
func (g *Gateway) status(w http.ResponseWriter, _ *http.Request) {
	_, known := g.models.names()
	models := make([]modelStatus, 0, len(known))
	for _, m := range known {
		models = append(models, m.status())
	}
	g.recent.mu.Lock()
	requests := make([]*running, 0, len(g.recent.running))
	for one := range g.recent.running {
		requests = append(requests, one)
	}
	migrations := slices.Clone(g.recent.migrations)
	g.recent.mu.Unlock()
	slices.SortFunc(requests, func(a, b *running) int { return a.Since.Compare(b.Since) })
	slices.Reverse(migrations)
	out := []engineStatus{}
	if g.cfg.Engines != nil {
		for name, why := range g.cfg.Engines.takesNone() {
			out = append(out, engineStatus{name, why})
		}
	}
	slices.SortFunc(out, func(a, b engineStatus) int { return strings.Compare(a.Name, b.Name) })
	b, err := json.Marshal(map[string]any{
		"models": models, "engines_out": out, "running": len(requests), "requests": requests[:min(len(requests), maxRunning)], "migrations": migrations,
	})
	if err != nil {
		panic(err) // every value of these types can be marshalled
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, b)
}

func (m *model) status() modelStatus {
	t := m.router.Tiers()
	s := modelStatus{Name: m.name, Instances: make([]instanceStatus, 0, len(t.Source))}
	avail := map[string]bool{}
	for _, p := range t.Avail {
		avail[p.ID.String()] = true
	}
	for _, p := range t.Source {
		i := instanceStatus{Name: p.Name, ID: p.ID.String(), Avail: avail[p.ID.String()], Streams: p.Streams(), Trial: p.HalfOpen()}
		if down, ok := t.Down[p.ID]; ok {
			i.Until, i.Why = down.Until, down.Cause.Error()
		}
		s.Instances = append(s.Instances, i)
	}
	return s
}
