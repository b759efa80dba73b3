package instances

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/request-migration/migrate/cmd/internal/cli"
	"github.com/request-migration/migrate/cmd/internal/outlet"
	"github.com/request-migration/migrate/cmd/internal/term"
	"github.com/request-migration/migrate/pkg/discovery"
)

// namespaceView is what the command shows of all endpoints of a namespace that have
// instances.
type namespaceView struct {
	Namespace string          `json:"namespace"`
	Endpoints []instancesView `json:"endpoints"` // sorted by name
	// Stale says why the list of endpoints is an older one; "" if it is current.
	Stale string `json:"stale,omitempty"`

	where string // describes the store
}

// lookAll returns the current view of a namespace.
func lookAll(ctx context.Context, registry *discovery.Registry, namespace string, cooldown time.Duration) (namespaceView, error) {
	all, err := registry.ListNamespace(ctx, namespace)
	if err != nil {
		return namespaceView{}, fmt.Errorf("listing the instances of namespace %s: %w", namespace, err)
	}
	v := namespaceView{Namespace: namespace, Endpoints: []instancesView{}}
	if all.Stale != nil {
		v.Stale = all.Stale.Error()
	}
	for len(all.List) > 0 {
		endpoint, n := all.List[0].Endpoint, 0
		for n < len(all.List) && all.List[n].Endpoint == endpoint {
			n++
		}
		list := discovery.Instances{List: all.List[:n:n], Stale: all.Stale}
		all.List = all.List[n:]
		v.Endpoints = append(v.Endpoints, withReports(ctx, registry, endpoint, list, cooldown))
	}
	return v, nil
}

// showAll shows all endpoints of the namespace.
func showAll(ctx context.Context, c cli.Common, registry *discovery.Registry, o options, out, errOut io.Writer) error {
	v, err := lookAll(ctx, registry, c.Endpoint.Namespace, o.cooldown)
	if err != nil {
		return err
	}
	if o.probe {
		for _, e := range v.Endpoints {
			e.probeAll(ctx, c.Logs.For("stream"))
		}
	}
	v.where = c.Where()
	if len(v.Endpoints) == 0 && o.output == "table" {
		_, _ = fmt.Fprintf(errOut, "no instances of namespace %s in %s\n", v.Namespace, v.where) // as a hint
	}
	if err := outlet.Write(ctx, out, v.text(out, o.output)); err != nil {
		return fmt.Errorf("writing the instances: %w", err)
	}
	return nil
}

// text returns v as tables, one an endpoint, or as JSON.
func (v namespaceView) text(w io.Writer, output string) []byte {
	if output == "json" {
		b, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			panic(err) // every value of these types can be marshalled
		}
		return append(b, '\n')
	}
	var text []byte
	p, width, now := newPalette(w), term.Width(w), time.Now()
	if len(v.Endpoints) == 0 {
		return append([]byte(newTable(nil, p, now).lines(width)[0]), '\n')
	}
	for n, e := range v.Endpoints {
		if n > 0 {
			text = append(text, '\n')
		}
		text = append(append(text, paint(p.head, clip(term.Plain(e.Endpoint), width))...), '\n')
		for _, line := range e.tableLines(p, width, now) {
			text = append(append(text, line...), '\n')
		}
	}
	return text
}
