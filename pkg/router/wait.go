package router

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// wait is the time that a request spends on waiting for an instance.
type wait struct {
	limit time.Duration // 0 while there is none
	end   time.Time     // of limit
	next  time.Time     // when to look again
	t     *time.Timer
}

// within bounds the wait. Its first call sets the end.
func (w *wait) within(limit time.Duration) {
	if w.limit == 0 {
		w.limit, w.end = limit, time.Now().Add(limit)
	}
	w.until(w.end)
}

// over reports whether the bound has passed. A caller that looks for an instance
// before each call finds one that comes in the last moment.
func (w *wait) over() bool { return w.limit > 0 && !time.Now().Before(w.end) }

// until makes timer fire at a time, if it would not fire earlier. A zero time
// changes nothing.
func (w *wait) until(at time.Time) {
	if !at.IsZero() && (w.next.IsZero() || at.Before(w.next)) {
		w.next = at
	}
}

// timer returns a channel that fires at the earliest time that until has been given
// since the last call, nil if there is none.
func (w *wait) timer() <-chan time.Time {
	if w.next.IsZero() {
		return nil
	}
	left := time.Until(w.next)
	w.next = time.Time{}
	if w.t == nil {
		w.t = time.NewTimer(left)
	} else {
		w.t.Reset(left)
	}
	return w.t.C
}

func (w *wait) stop() {
	if w.t != nil {
		w.t.Stop()
	}
}

// wait returns for how long the request waits for an instance to appear.
func (c *call) wait() time.Duration { return cmp.Or(c.req.Wait, c.r.cfg.Wait) }

// waitRestore returns for how long it waits for one to return.
func (c *call) waitRestore() time.Duration { return cmp.Or(c.req.WaitRestore, c.r.cfg.WaitRestore) }

// awaitSource waits until the source lists an instance for the first attempt. If
// the source has never been read, its first error ends the wait.
func (c *call) awaitSource(ctx context.Context) error {
	var w wait
	defer w.stop()
	for {
		if c.r.ctx.Err() != nil {
			return c.closed()
		}
		t := c.r.tiers.load()
		switch {
		case !t.unasked && len(t.Source) > 0 && (c.req.Instance == "" || len(t.meant(c.req.Instance)) > 0):
			return nil
		case !t.listed && t.Stale != nil:
			return fmt.Errorf("reading the instances of endpoint %v: %w", c.r.cfg.Endpoint, inner{t.Stale})
		case w.over() || t.listed && !t.unasked && c.wait() <= 0:
			if len(t.Lost) > 0 && (c.req.Instance == "" || len(t.meantLost(c.req.Instance)) > 0) {
				return nil
			}
			return c.nobodyListed(t)
		case c.wait() > 0:
			if w.limit == 0 {
				c.r.log.Info("waiting for an instance", "request", c.req.ID, "endpoint", c.r.cfg.Endpoint, "for", c.wait())
			}
			w.within(c.wait())
		}
		select {
		case <-t.replaced:
		case <-w.timer():
		case <-ctx.Done():
			return c.contextError(ctx)
		case <-c.r.ctx.Done():
		}
	}
}

// mayWait reports whether the request waits for an instance to return or to join. It
// does not wait if every instance has refused it, as none is asked again then.
func (c *call) mayWait(t *Tiers) bool {
	if c.waitRestore() <= 0 || c.isRefusedEnough() {
		return false
	}
	if c.overloads == 0 {
		return true
	}
	for id := range t.Down {
		if t.byID(id) != nil {
			return true
		}
	}
	for id, o := range c.tried {
		if p := t.byID(id.id); !o.refused && p != nil && p.identity() == id {
			return true
		}
	}
	return false
}

// soonest returns when the request may first go back to an instance where it broke
// without a report, zero if there is none. The other instances are down; when one
// returns, there are new tiers.
func (c *call) soonest(t *Tiers) (at time.Time) {
	now := time.Now()
	for id, o := range c.tried {
		if o.refused || o.kind == stream.Diverged || !o.again.After(now) || t.byID(id.id) == nil {
			continue
		}
		if at.IsZero() || o.again.Before(at) {
			at = o.again
		}
	}
	return at
}

// nobodyListed returns the error of a request for which t's source has no instance.
func (c *call) nobodyListed(t *Tiers) error {
	err := c.noInstances(t, c.wait())
	if !t.listed {
		err.Stale = errors.New("no answer yet")
	}
	if err.Wanted = c.req.Instance; err.Wanted != "" {
		for _, p := range t.Source {
			err.Known = append(err.Known, label(*p.Instance))
		}
	}
	return err
}
