package cmd

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

// instancesView is what is shown of an endpoint: the two tiers, and for every
// difference between them the reason.
type instancesView struct {
	Endpoint string                 `json:"endpoint"`
	Source   []discovery.InstanceID `json:"instance_source"`
	Avail    []discovery.InstanceID `json:"instance_avail"`
	Rows     []instanceRow          `json:"instances"` // sorted by name, then by id
	// Stale says why this is an older view, or not a full one; "" if it is current.
	Stale string `json:"stale,omitempty"`

	where string // the store that was looked in
}

// nobody says that there is nothing to show, and where it was looked for; "" if
// there is something.
func (v instancesView) nobody() string {
	if len(v.Rows) > 0 {
		return ""
	}
	return fmt.Sprintf("no instances of %s in %s", v.Endpoint, v.where)
}

// instanceRow is what is shown of one instance.
type instanceRow struct {
	ID        discovery.InstanceID `json:"id"`
	Name      string               `json:"name"`
	Address   string               `json:"address"`
	Transport string               `json:"transport"`
	Source    bool                 `json:"source"`
	Avail     bool                 `json:"avail"`
	// Resume, MaxRequest and Wire are what the record says; absent where it
	// says nothing.
	Resume     discovery.Resume `json:"resume,omitempty"`
	MaxRequest int              `json:"max_request,omitempty"`
	Wire       int              `json:"wire,omitempty"`
	// Down is the report that keeps the instance out of avail, Reported one that
	// does not: others make a trial of the instance first. One at most is there.
	Down     *reportRow   `json:"down,omitempty"`
	Reported *reportRow   `json:"reported,omitempty"`
	Probe    *probeResult `json:"probe,omitempty"`

	incarnation string
	routable    bool
	to          string // the record's name, which the server knows; "" if it does not
}

// report returns the report that there is of the instance, or nil.
func (r *instanceRow) report() *reportRow {
	if r.Down != nil {
		return r.Down
	}
	return r.Reported
}

// reportRow is a report. The times are this machine's.
type reportRow struct {
	Kind     string    `json:"kind"`
	Reason   string    `json:"reason"`
	Reporter string    `json:"reporter"`
	Since    time.Time `json:"since"`
	Until    time.Time `json:"until"`
	// Others are the reports of the same instance that end sooner.
	Others []reportRow `json:"others,omitempty"`
}

// newInstancesView brings together who is listed and who is reported.
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
			Resume: i.Resume, MaxRequest: i.MaxRequest, Wire: i.Wire,
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

// reportsByInstance sorts out the reports that have not ended, as routers see
// it: by their own clock, if the store is late to drop one.
func reportsByInstance(reports discovery.Reports, now time.Time) map[discovery.InstanceID][]discovery.Report {
	by := make(map[discovery.InstanceID][]discovery.Report)
	for _, r := range reports.List {
		if r.Stands(now) {
			by[r.Instance] = append(by[r.Instance], r)
		}
	}
	return by
}

// newReport returns what is shown of the reports of one instance, or nil if there
// are none. The one that ends last decides when the instance returns.
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
		panic(err) // the types are ours, and all can be marshalled
	}
	return append(append(dst, b...), '\n')
}

// plain shows a text that others chose without what would move the cursor or
// end the row.
func plain(s string) string {
	quoted := rustDebug(s)
	if quoted = quoted[1 : len(quoted)-1]; quoted != s {
		return quoted
	}
	return s
}
