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
	changeLeft     = "left"     // discovery no longer lists it
	changeDown     = "down"     // reports take it out of avail, or put off its return
	changeReported = "reported" // only one client could not reach it: others try it first
	changeRestored = "restored" // it is listed, and no longer reported
	changeStale    = "stale"    // the store cannot be read
	changeFresh    = "fresh"    // the store can be read again
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

// longer is how much a report must put off an instance's return to count as a change:
// clients that see the same failure report it within moments of each other.
const longer = time.Second

// changes returns the changes from last to next. last is nil at the beginning, when every
// instance joins.
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
			continue // its departure was a change already
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

// isLonger reports whether a report is new, or puts off the return of the instance.
func isLonger(was, is *reportRow) bool {
	return is != nil && (was == nil || is.Until.Sub(was.Until) > longer)
}

// sameServer reports whether r and other are the same server, and not two that had the
// same id one after the other.
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

// orDash returns s, or "-" if it is empty.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// watchLines prints each change to w as a line until ctx ends or writing fails. If there
// are no instances at the beginning it says so on notes.
func watchLines(ctx context.Context, f *feed, w, notes io.Writer, asJSON bool) error {
	// A report may end before the store drops it.
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
			_, _ = fmt.Fprintln(notes, nobody) // there is nowhere to report a failure to
		}
		var text []byte
		for _, c := range changes(last, next, now) {
			text = append(c.append(text, asJSON), '\n')
		}
		last = &next
		if until := next.nextReturn(); !until.IsZero() {
			ended.Reset(time.Until(until.Add(time.Millisecond))) // until is rounded
		}
		if len(text) == 0 {
			continue
		}
		if err := outlet.Write(ctx, w, text); err != nil {
			return fmt.Errorf("writing the changes: %w", err)
		}
	}
}

// append appends c as a line, without the newline.
func (c change) append(dst []byte, asJSON bool) []byte {
	if !asJSON {
		return append(dst, c.text()...)
	}
	b, err := json.Marshal(c)
	if err != nil {
		panic(err) // every value of these types can be marshalled
	}
	return append(dst, b...)
}
