package instances

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/request-migration/migrate/cmd/internal/outlet"
)

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
