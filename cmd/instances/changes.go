package instances

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/request-migration/migrate/cmd/internal/outlet"
	"github.com/request-migration/migrate/cmd/internal/term"
	"github.com/request-migration/migrate/pkg/discovery"
)

// The types of change.
const (
	changeJoined   = "joined"   // discovery lists the instance
	changeLeft     = "left"     // discovery lists it no longer
	changeDown     = "down"     // reports take it out of avail, or for longer than was known
	changeReported = "reported" // one client alone could not reach it: others make a trial of it
	changeRestored = "restored" // it is listed and reported no longer
	changeStale    = "stale"    // the store can't be read
	changeFresh    = "fresh"    // it can again
)

// change is one line of --watch.
type change struct {
	Time      time.Time             `json:"time"`
	Type      string                `json:"type"`
	ID        *discovery.InstanceID `json:"id,omitempty"`
	Name      string                `json:"name,omitempty"`
	Address   string                `json:"address,omitempty"`
	Transport string                `json:"transport,omitempty"`
	Down      *reportRow            `json:"down,omitempty"`
	Reported  *reportRow            `json:"reported,omitempty"`
	Reason    string                `json:"reason,omitempty"` // of stale

	note string // why a listed instance gets no requests
}

// longer is how much a report must put off an instance's return to be told:
// clients that see the same failure report it within moments of each other.
const longer = time.Second

// changes returns what makes next out of last, which is nil at the beginning:
// then everybody joins.
func changes(last *instancesView, next instancesView, now time.Time) []change {
	now = now.UTC().Round(time.Millisecond)
	var all []change
	add := func(kind string, r instanceRow) {
		c := change{Time: now, Type: kind, ID: &r.ID, Name: r.Name, Address: r.Address, Transport: r.Transport}
		switch kind {
		case changeDown:
			c.Down = r.Down
		case changeReported:
			c.Reported = r.Reported
		case changeJoined:
			c.note = r.note()
		}
		all = append(all, c)
	}
	known := map[discovery.InstanceID]instanceRow{}
	wasStale := false
	if last != nil {
		wasStale = last.Stale != ""
		for _, r := range last.Rows {
			if r.Source {
				known[r.ID] = r
			}
		}
	}
	listed := make(map[discovery.InstanceID]instanceRow, len(next.Rows))
	for _, r := range next.Rows {
		if r.Source {
			listed[r.ID] = r
		}
	}
	switch {
	case next.Stale != "" && !wasStale:
		all = append(all, change{Time: now, Type: changeStale, Reason: next.Stale})
	case next.Stale == "" && wasStale:
		all = append(all, change{Time: now, Type: changeFresh})
	}
	if last != nil {
		for _, r := range last.Rows {
			if is, ok := listed[r.ID]; r.Source && (!ok || !is.sameServer(r)) {
				add(changeLeft, r)
			}
		}
	}
	for _, r := range next.Rows {
		if !r.Source {
			continue // that it left has been told
		}
		was, ok := known[r.ID]
		if !ok || !was.sameServer(r) {
			add(changeJoined, r)
			was = instanceRow{}
		}
		switch {
		case isLonger(was.Down, r.Down):
			add(changeDown, r)
		case r.Reported != nil && was.Down != nil || isLonger(was.Reported, r.Reported):
			add(changeReported, r)
		case was.report() != nil && r.report() == nil:
			add(changeRestored, r)
		}
	}
	return all
}

// isLonger reports whether a report is new, or puts the instance's return off.
func isLonger(was, is *reportRow) bool {
	return is != nil && (was == nil || is.Until.Sub(was.Until) > longer)
}

// sameServer reports whether r and other are of one server, not of two that had
// the same id one after the other.
func (r *instanceRow) sameServer(other instanceRow) bool {
	return r.Name == other.Name && r.Address == other.Address && r.Transport == other.Transport && r.incarnation == other.incarnation
}

// text returns c as a line for people.
func (c change) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %-8s", c.Time.Local().Format(time.DateTime+".000"), c.Type)
	if c.ID != nil {
		fmt.Fprintf(&b, "  %s  %v  %s", orDash(term.Plain(c.Name)), *c.ID, term.Plain(c.Address))
	}
	switch report := cmp.Or(c.Down, c.Reported); {
	case report != nil:
		fmt.Fprintf(&b, "  %s: %s; reported by %s, back %s",
			term.Plain(report.Kind), term.Plain(report.Reason), term.Plain(report.Reporter), back(report.Until.Sub(c.Time)))
	case c.note != "":
		b.WriteString("  " + c.note)
	case c.Reason != "":
		fmt.Fprintf(&b, "  %s", term.Plain(c.Reason))
	}
	return strings.TrimRight(b.String(), " ")
}

// orDash shows something where there may be nothing.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// watchLines prints a line a change to w until ctx ends or nobody reads any more. If
// there is nothing yet, it says so to notes.
func watchLines(ctx context.Context, f *feed, w, notes io.Writer, asJSON bool) error {
	// A report may end before the store says so.
	ended := time.NewTimer(0)
	defer ended.Stop()
	var last *instancesView
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-f.changed:
		case <-ended.C:
		}
		now := time.Now()
		next, ok, err := f.view(now)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if nobody := next.nobody(); nobody != "" && last == nil {
			_, _ = fmt.Fprintln(notes, nobody) // nowhere to say that this fails
		}
		var text []byte
		for _, c := range changes(last, next, now) {
			text = append(c.append(text, asJSON), '\n')
		}
		last = &next
		if until := next.nextReturn(); !until.IsZero() {
			ended.Reset(time.Until(until.Add(time.Millisecond))) // it is rounded
		}
		if len(text) == 0 {
			continue
		}
		if err := outlet.Write(ctx, w, text); err != nil {
			return fmt.Errorf("writing the changes: %w", err)
		}
	}
}

// append appends c as a line, without what ends it.
func (c change) append(dst []byte, asJSON bool) []byte {
	if !asJSON {
		return append(dst, c.text()...)
	}
	b, err := json.Marshal(c)
	if err != nil {
		panic(err) // the types are ours, and all can be marshalled
	}
	return append(dst, b...)
}
