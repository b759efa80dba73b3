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

// A Report says that a client has taken an instance out of its list, why, and for how
// long.
type Report struct {
	Endpoint    Endpoint
	Instance    InstanceID
	Incarnation string // of the instance; the report does not concern a later one
	Reporter    string // who reports; part of a key, so without a slash
	Kind        string // of the break, one word
	Reason      string // for people
	// Since and Until are the report's beginning and end. Those of a report that was
	// read are by the reader's clock.
	Since, Until time.Time
}

// The kinds of break in which the server itself showed, over a sound connection, that
// it does not serve. Package stream has all kinds.
const (
	kindFailed      = "failed"
	kindProtocol    = "protocol"
	kindMisdirected = "misdirected"
)

// serversWord reports whether the report rests on what the server said. The network
// between the server and the reporter can cause all other kinds of break.
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

// A reportRecord is the value of a report's record. Its times are for people who look
// into the store; readers go by the record's lease.
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
	// CooldownMS is the time from Since to Until in milliseconds. It depends on
	// nobody's clock.
	CooldownMS int64 `json:"cooldown_ms"`
}

// maxReason is the longest reason, in bytes, that is published.
const maxReason = 1024

// key returns the key of the record of r.
func (r Report) key() string {
	return downPrefix + r.Endpoint.String() + "/" + r.Instance.String() + "/" + r.Reporter
}

// Report publishes a report until its Until. It replaces an earlier report by the same
// reporter about the instance. Nobody renews the report, and it outlives this process.
// It is an error if the report has ended already or if its Reporter has a slash. A
// Reason above 1,024 bytes is cut.
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

// Reports is the complete set of down reports about an endpoint's instances at one
// moment. Readers may share it, and must not change it.
type Reports struct {
	List []Report // sorted by instance, then by reporter
	// Stale is nil if the set is current. Otherwise List is the last known set, of
	// which some reports may have ended, and Stale is the reason why the store can't
	// be read now.
	Stale error
}

// WatchReports yields the down reports about the instances of e, for readers who act
// on them, under the same contract as [Registry.Watch]. It yields a report for bound
// at most, counted from when the report was made. The Until of a report is an upper
// bound of its end: WatchReports asks the store for a report's age only if the report
// stands for longer than bound.
func (r *Registry) WatchReports(ctx context.Context, e Endpoint, bound time.Duration) iter.Seq2[Reports, error] {
	return r.watchReports(ctx, e, bound, func(cooldown time.Duration) bool { return cooldown > bound })
}

// WatchReportTimes yields what [Registry.WatchReports] yields, with times as exact as
// the store has them, for readers who show them. It asks the store for the age of
// every report.
func (r *Registry) WatchReportTimes(ctx context.Context, e Endpoint, bound time.Duration) iter.Seq2[Reports, error] {
	return r.watchReports(ctx, e, bound, func(time.Duration) bool { return true })
}

// watchReports asks the store for the age of a report if ask returns true for the
// report's cooldown.
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

// A readReport is a record and its report.
type readReport struct {
	value  []byte
	report Report
	ok     bool
}

// maxAsking is how many requests for reports' ages a watch has in flight: enough to
// hide the round trips, and few enough for any store.
const maxAsking = 32

// readReports reads the records. Those that are in known keep their times.
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
			free <- struct{}{} // comes free when ctx ends, too
			asking.Go(func() {
				k.setEnd(time.Now().Add(r.expiry(ctx, record.Key, cooldown)), cooldown)
				<-free
			})
		}
	}
	asking.Wait()
	return all
}

// setEnd sets the report's times by its end.
func (k *readReport) setEnd(until time.Time, cooldown time.Duration) {
	k.report.Until = until
	k.report.Since = until.Add(-cooldown)
}

// expiry returns how long the record under key still stands. One whose age the
// store can't tell is taken to be new.
func (r *Registry) expiry(ctx context.Context, key string, cooldown time.Duration) time.Duration {
	expirer, ok := r.store.(Expirer)
	if !ok {
		return cooldown
	}
	expiry, err := expirer.Expiry(ctx, key)
	if err != nil || expiry <= 0 {
		return cooldown
	}
	return min(expiry, cooldown) // some stores round up
}

// decodeReport reads what [Registry.Report] writes. The report has no times yet.
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

// maxCooldown is longer than anybody needs. It keeps the milliseconds of a record from
// overflowing.
const maxCooldown = 365 * 24 * time.Hour
