package discovery

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"
)

// downPrefix is what the keys of all down reports begin with. Dynamo has none.
const downPrefix = "v1/down/"

// kindDown is the "type" of a report's record.
const kindDown = "Down"

// A Report says that a client has taken an instance out of its list, why, and
// for how long.
type Report struct {
	Endpoint    Endpoint
	Instance    InstanceID
	Incarnation string // of the instance; a later one is not concerned
	Reporter    string // who reports; part of a key, so without a slash
	Kind        string // of the break, in one word
	Reason      string // in words
	// Since and Until are, in a report that was read, by the reader's clock.
	Since, Until time.Time
}

// The kinds of break in which the server itself said or showed, over a sound
// connection, that it does not serve. (Package stream has all kinds.)
const (
	kindFailed      = "failed"
	kindProtocol    = "protocol"
	kindMisdirected = "misdirected"
)

// serversWord reports whether the report rests on what the server said, and not
// on what the network between it and the reporter can cause as well.
func (r Report) serversWord() bool {
	return r.Kind == kindFailed || r.Kind == kindProtocol || r.Kind == kindMisdirected
}

// Stands reports whether r has not ended at now.
func (r Report) Stands(now time.Time) bool { return r.Until.After(now) }

// Standing returns those of reports that concern i, not an earlier server with the
// same id, and that stand at now; and whether they take i out of a reader's list:
// one rests on the server's own word, or there are two reporters. What a single
// client has seen may be due to its own network, and only calls for a trial of i.
func Standing(i Instance, reports []Report, now time.Time) (standing []Report, out bool) {
	for _, r := range reports {
		if r.Instance == i.ID && r.Incarnation == i.Incarnation && r.Stands(now) {
			standing = append(standing, r)
			out = out || r.serversWord() || r.Reporter != standing[0].Reporter
		}
	}
	return standing, out
}

// reportRecord is the value of a report's record. Its times are for people who
// look into the store: readers go by the record's lease.
type reportRecord struct {
	Type        string    `json:"type"`
	Namespace   string    `json:"namespace"`
	Component   string    `json:"component"`
	Endpoint    string    `json:"endpoint"`
	InstanceID  *uint64   `json:"instance_id"`
	Incarnation string    `json:"incarnation,omitempty"`
	Reporter    string    `json:"reporter"`
	Kind        string    `json:"kind"`
	Reason      string    `json:"reason"`
	Since       time.Time `json:"since"`
	Until       time.Time `json:"until"`
	// CooldownMS is the time between the two, which needs no clock.
	CooldownMS int64 `json:"cooldown_ms"`
}

// maxReason bounds what a report takes up in a store, in bytes.
const maxReason = 1024

// key is the key of the record of r.
func (r Report) key() string {
	return downPrefix + r.Endpoint.String() + "/" + r.Instance.String() + "/" + r.Reporter
}

// Report publishes r until its Until, however late that is after its Since, and
// replaces what the same reporter has said of the instance before. Nobody renews
// it, and it outlives this process. A report that has ended is an error.
func (r *Registry) Report(ctx context.Context, report Report) error {
	ttl, cooldown := time.Until(report.Until), report.Until.Sub(report.Since)
	if ttl <= 0 || cooldown <= 0 || strings.Contains(report.Reporter, "/") {
		return fmt.Errorf("reporting instance %s of %s down: want time left, a cooldown above 0 and a reporter without a slash, got %v, %v and %q",
			report.Instance, report.Endpoint, ttl, cooldown, report.Reporter)
	}
	if len(report.Reason) > maxReason {
		report.Reason = strings.ToValidUTF8(report.Reason[:maxReason], "")
	}
	id := uint64(report.Instance)
	value, err := json.Marshal(reportRecord{
		Type:        kindDown,
		Namespace:   report.Endpoint.Namespace,
		Component:   report.Endpoint.Component,
		Endpoint:    report.Endpoint.Name,
		InstanceID:  &id,
		Incarnation: report.Incarnation,
		Reporter:    report.Reporter,
		Kind:        report.Kind,
		Reason:      report.Reason,
		Since:       report.Since,
		Until:       report.Until,
		CooldownMS:  max(cooldown.Milliseconds(), 1),
	})
	if err == nil {
		_, err = r.store.Put(ctx, report.key(), value, ttl)
	}
	if err != nil {
		return fmt.Errorf("reporting instance %s of %s down: %w", report.Instance, report.Endpoint, err)
	}
	r.log.Debug("reported instance down", "endpoint", report.Endpoint.String(), "id", report.Instance.String(), "for", ttl)
	return nil
}

// Reports is the complete set of down reports about an endpoint's instances at
// one moment. It may be shared: readers must not change it.
type Reports struct {
	List []Report // sorted by instance, then by reporter
	// Stale is nil while the set is current. Otherwise List is the last known
	// set, of which some may have ended, and Stale says why the store can't be
	// read now.
	Stale error
}

// WatchReports yields the down reports about the instances of e, for readers who
// act on them, under the same contract as [Registry.Watch]. A report is heeded
// for bound at most, counted from when it was made; what has passed it is left
// out. Until is an upper bound of a report's end, as its age is asked of the
// store only where it matters: where the report is for longer than bound.
func (r *Registry) WatchReports(ctx context.Context, e Endpoint, bound time.Duration) iter.Seq2[Reports, error] {
	return r.watchReports(ctx, e, bound, func(cooldown time.Duration) bool { return cooldown > bound })
}

// WatchReportTimes yields what [Registry.WatchReports] does, with the times of
// every report as exact as the store has them: for readers who show them.
func (r *Registry) WatchReportTimes(ctx context.Context, e Endpoint, bound time.Duration) iter.Seq2[Reports, error] {
	return r.watchReports(ctx, e, bound, func(time.Duration) bool { return true })
}

// watchReports asks the store for the age of a report whose cooldown ask returns
// true for.
func (r *Registry) watchReports(ctx context.Context, e Endpoint, bound time.Duration, ask func(time.Duration) bool) iter.Seq2[Reports, error] {
	return func(yield func(Reports, error) bool) {
		if err := e.check(); err != nil {
			yield(Reports{}, err)
			return
		}
		var known map[string]*readReport
		for snap, err := range r.store.Watch(ctx, downPrefix+e.String()+"/") {
			if err != nil {
				yield(Reports{}, fmt.Errorf("watching reports about %s: %w", e, err))
				return
			}
			known = r.readReports(ctx, snap.Records, known, ask)
			set := Reports{List: make([]Report, 0, len(known)), Stale: snap.Stale}
			now := time.Now()
			for _, k := range known {
				report := k.report
				if limit := report.Since.Add(bound); report.Until.After(limit) {
					report.Until = limit
				}
				if k.ok && report.Until.After(now) {
					set.List = append(set.List, report)
				}
			}
			slices.SortFunc(set.List, func(a, b Report) int {
				return cmp.Or(cmp.Compare(a.Instance, b.Instance), strings.Compare(a.Reporter, b.Reporter))
			})
			r.log.Debug("snapshot of down reports", "endpoint", e.String(), "reports", len(set.List))
			if !yield(set, nil) {
				return
			}
		}
	}
}

// ListReports returns the down reports about the instances of e that stand now,
// with the times that [Registry.WatchReportTimes] yields.
func (r *Registry) ListReports(ctx context.Context, e Endpoint, bound time.Duration) (Reports, error) {
	for set, err := range r.WatchReportTimes(ctx, e, bound) {
		return set, err
	}
	return Reports{}, fmt.Errorf("watching reports about %s: the store yielded nothing", e)
}

// readReport is a record and what it says.
type readReport struct {
	value  []byte
	report Report
	ok     bool
}

// maxAsking is how many questions about reports' ages a registry has under way:
// enough to hide a round trip behind others, few enough for any store.
const maxAsking = 32

// readReports reads records, those that are known already only once: their
// times stay what they were.
func (r *Registry) readReports(ctx context.Context, records []Record, known map[string]*readReport, ask func(time.Duration) bool) map[string]*readReport {
	all := make(map[string]*readReport, len(records))
	var asking sync.WaitGroup
	free := make(chan struct{}, maxAsking)
	for _, record := range records {
		if k, ok := known[record.Key]; ok && bytes.Equal(k.value, record.Value) {
			all[record.Key] = k
			continue
		}
		report, cooldown, err := decodeReport(record.Key, record.Value)
		if err != nil && r.odd.add(record) {
			r.log.Warn("skipping a record", "err", err)
		}
		k := &readReport{value: record.Value, report: report, ok: err == nil}
		all[record.Key] = k
		switch {
		case err != nil:
		case !ask(cooldown):
			k.setEnd(time.Now().Add(cooldown), cooldown)
		default:
			free <- struct{}{} // a question ends with ctx, too
			asking.Go(func() {
				k.setEnd(time.Now().Add(r.left(ctx, record.Key, cooldown)), cooldown)
				<-free
			})
		}
	}
	asking.Wait()
	return all
}

// setEnd sets the report's times by when it ends.
func (k *readReport) setEnd(until time.Time, cooldown time.Duration) {
	k.report.Until = until
	k.report.Since = until.Add(-cooldown)
}

// left returns how long the record under key still stands, as far as the store
// can tell; else it is taken to be new.
func (r *Registry) left(ctx context.Context, key string, cooldown time.Duration) time.Duration {
	teller, ok := r.store.(interface {
		Left(ctx context.Context, key string) (time.Duration, error)
	})
	if !ok {
		return cooldown
	}
	left, err := teller.Left(ctx, key)
	if err != nil || left <= 0 {
		return cooldown
	}
	return min(left, cooldown) // some stores round up
}

// decodeReport reads what [Registry.Report] writes; the report has no times yet.
func decodeReport(key string, value []byte) (report Report, cooldown time.Duration, err error) {
	var record reportRecord
	if err = json.Unmarshal(value, &record); err == nil {
		switch {
		case record.Type != kindDown:
			err = fmt.Errorf("type is %q, not %q", record.Type, kindDown)
		case record.InstanceID == nil:
			err = errors.New("no instance_id")
		case record.CooldownMS <= 0 || record.CooldownMS > maxCooldown.Milliseconds():
			err = fmt.Errorf("cooldown_ms is %d", record.CooldownMS)
		}
	}
	if err == nil {
		report = Report{
			Endpoint:    Endpoint{Namespace: record.Namespace, Component: record.Component, Name: record.Endpoint},
			Instance:    InstanceID(*record.InstanceID),
			Incarnation: record.Incarnation,
			Reporter:    record.Reporter,
			Kind:        record.Kind,
			Reason:      record.Reason,
		}
		if key != report.key() {
			err = fmt.Errorf("its value belongs under %q", report.key())
		}
	}
	if err != nil {
		return Report{}, 0, fmt.Errorf("decoding record %q: %w", key, err)
	}
	return report, time.Duration(record.CooldownMS) * time.Millisecond, nil
}

// maxCooldown is beyond any use, and keeps a record's number from overflowing.
const maxCooldown = 365 * 24 * time.Hour
