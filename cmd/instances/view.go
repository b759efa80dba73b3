package instances

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

// instancesView is what the command shows of an endpoint: the two tiers, and the reason for
// each difference between them.
type instancesView struct {
	Endpoint string                 `json:"endpoint"`
	Source   []discovery.InstanceID `json:"instance_source"`
	Avail    []discovery.InstanceID `json:"instance_avail"`
	Rows     []instanceRow          `json:"instances"` // sorted by name, then by id
	// Stale says why this is an older view, or not a full one; "" if it is current.
	Stale string `json:"stale,omitempty"`

	where string // describes the store
}

// nobody returns the message for a view without instances, and "" for any other.
func (v instancesView) nobody() string {
	if len(v.Rows) > 0 {
		return ""
	}
	return fmt.Sprintf("no instances of %s in %s", v.Endpoint, v.where)
}

// instanceRow is what the command shows of one instance.
type instanceRow struct {
	ID        discovery.InstanceID `json:"id"`
	Name      string               `json:"name"`
	Address   string               `json:"address"`
	Transport string               `json:"transport"`
	Source    bool                 `json:"source"`
	Avail     bool                 `json:"avail"`
	// Engine, Resume, MaxRequest and Wire are those of the record, absent if it has none.
	Engine     string           `json:"engine,omitempty"`
	Resume     discovery.Resume `json:"resume,omitempty"`
	MaxRequest int              `json:"max_request,omitempty"`
	Wire       int              `json:"wire,omitempty"`
	// Down is the report that keeps the instance out of avail; Reported is one that does
	// not, since other clients try the instance first. At most one of them is set.
	Down     *reportRow   `json:"down,omitempty"`
	Reported *reportRow   `json:"reported,omitempty"`
	Probe    *probeResult `json:"probe,omitempty"`

	incarnation string
	routable    bool
	to          string // the record's name, which the server knows; "" if it does not
}

// report returns the report of the instance, or nil.
func (r *instanceRow) report() *reportRow {
	if r.Down != nil {
		return r.Down
	}
	return r.Reported
}

// reportRow is a report, with times of this machine's clock.
type reportRow struct {
	Kind     string    `json:"kind"`
	Reason   string    `json:"reason"`
	Reporter string    `json:"reporter"`
	Since    time.Time `json:"since"`
	Until    time.Time `json:"until"`
	// Others are the reports of the same instance that end sooner.
	Others []reportRow `json:"others,omitempty"`
}

// newInstancesView combines the list of instances with the reports.
func newInstancesView(endpoint discovery.Endpoint, list discovery.Instances, reports discovery.Reports, now time.Time) instancesView {
	v := instancesView{
		Endpoint: endpoint.String(),
		Source:   []discovery.InstanceID{}, Avail: []discovery.InstanceID{},
		Rows: make([]instanceRow, 0, len(list.List)),
	}
	switch {
	case list.Stale != nil:
		v.Stale = list.Stale.Error()
	case reports.Stale != nil:
		v.Stale = "down reports: " + reports.Stale.Error()
	}
	reported := reportsByInstance(reports, now)
	for _, i := range list.List {
		reports, out := discovery.Standing(i, reported[i.ID], now)
		delete(reported, i.ID)
		avail := i.Routable() && !out
		v.Source = append(v.Source, i.ID)
		if avail {
			v.Avail = append(v.Avail, i.ID)
		}
		row := instanceRow{
			ID: i.ID, Name: i.Name, Address: i.Address, Transport: i.Transport,
			Source: true, Avail: avail, incarnation: i.Incarnation,
			Engine: i.Engine, Resume: i.Resume, MaxRequest: i.MaxRequest, Wire: i.Wire,
			routable: i.Routable(),
		}
		if i.Incarnation != "" {
			row.to = i.Record()
		}
		if out {
			row.Down = newReport(reports)
		} else {
			row.Reported = newReport(reports)
		}
		v.Rows = append(v.Rows, row)
	}
	for id, left := range reported {
		v.Rows = append(v.Rows, instanceRow{ID: id, Down: newReport(left)})
	}
	slices.SortFunc(v.Rows, func(a, b instanceRow) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return v
}

// reportsByInstance groups the reports that have not ended. Like routers, it goes by its
// own clock, since a store may be late in dropping one.
func reportsByInstance(reports discovery.Reports, now time.Time) map[discovery.InstanceID][]discovery.Report {
	by := make(map[discovery.InstanceID][]discovery.Report)
	for _, r := range reports.List {
		if r.Stands(now) {
			by[r.Instance] = append(by[r.Instance], r)
		}
	}
	return by
}

// newReport returns what is shown of the reports of one instance, or nil if there are
// none. The report that ends last decides when the instance returns, so it comes first.
func newReport(reports []discovery.Report) *reportRow {
	if len(reports) == 0 {
		return nil
	}
	slices.SortFunc(reports, func(a, b discovery.Report) int {
		return cmp.Or(b.Until.Compare(a.Until), cmp.Compare(a.Reporter, b.Reporter))
	})
	rows := make([]reportRow, len(reports))
	for i, r := range reports {
		rows[i] = reportRow{
			Kind: r.Kind, Reason: r.Reason, Reporter: r.Reporter,
			Since: r.Since.UTC().Round(time.Millisecond), Until: r.Until.UTC().Round(time.Millisecond),
		}
	}
	rows[0].Others = rows[1:]
	return &rows[0]
}

// nextReturn returns when the next report ends; zero if there is none.
func (v instancesView) nextReturn() time.Time {
	var next time.Time
	for _, r := range v.Rows {
		if report := r.report(); report != nil && (next.IsZero() || report.Until.Before(next)) {
			next = report.Until
		}
	}
	return next
}

func (v instancesView) appendJSON(dst []byte) []byte {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic(err) // every value of these types can be marshalled
	}
	return append(append(dst, b...), '\n')
}
