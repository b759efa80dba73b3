package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// pickTries is how often the picker may return an instance that the request has
// tried before the instances are filtered. Those that broke the request are
// down, so the first choice nearly always does; and filtering thousands of
// instances because a few are out would cost more.
const pickTries = 4

// pick returns an available instance that the request has not tried, or why
// there is none.
func (c *call) pick(ctx context.Context) (*Peer, error) {
	var expired <-chan time.Time
	for over := false; ; {
		if ctx.Err() != nil {
			return nil, c.contextError(ctx)
		}
		t := c.r.tiers.load()
		if p := c.choose(t); p != nil {
			return p, nil
		}
		if c.refused && len(t.Avail)+len(t.Spare) > 0 {
			return nil, ErrOverloaded
		}
		switch {
		case c.r.cfg.WaitRestore <= 0:
			return nil, c.noInstances(t, 0)
		case over:
			return nil, c.noInstances(t, c.r.cfg.WaitRestore)
		case expired == nil:
			timer := time.NewTimer(c.r.cfg.WaitRestore)
			defer timer.Stop()
			expired = timer.C
		}
		select {
		case <-t.replaced:
		case <-ctx.Done():
		case <-c.r.ctx.Done():
			return nil, ErrClosed
		case <-expired:
			over = true
		}
	}
}

// choose returns an available instance that the request has not tried, or nil.
func (c *call) choose(t *Tiers) *Peer {
	if c.req.Instance != "" && c.attempt == 1 && len(c.tried) == 0 {
		// What others have reported does not overrule the caller.
		for _, peers := range [][]*Peer{t.Avail, t.Spare} {
			if p := find(peers, c.req.Instance); p != nil {
				return p
			}
		}
	}
	if p := c.chooseFrom(t.Avail); p != nil {
		return p
	}
	return c.chooseFrom(t.Spare)
}

// chooseFrom returns one of peers that the request has not tried, or nil.
func (c *call) chooseFrom(peers []*Peer) *Peer {
	if len(peers) == 0 {
		return nil
	}
	for range pickTries {
		if p := c.r.cfg.Picker.Pick(peers); !c.hasTried(p) {
			return p
		}
	}
	left := make([]*Peer, 0, len(peers))
	for _, p := range peers {
		if !c.hasTried(p) {
			left = append(left, p)
		}
	}
	if len(left) == 0 {
		return nil
	}
	return c.r.cfg.Picker.Pick(left)
}

// awaitSource waits until the source lists an instance for the first attempt. If
// the source has never been read, its first error ends the wait.
func (c *call) awaitSource(ctx context.Context) error {
	var expired <-chan time.Time
	for over := false; ; {
		if c.r.ctx.Err() != nil {
			return ErrClosed
		}
		t := c.r.tiers.load()
		switch {
		case !t.unasked && len(t.Source) > 0 && (c.req.Instance == "" || find(t.Source, c.req.Instance) != nil):
			return nil
		case !t.listed && t.Stale != nil:
			return fmt.Errorf("reading the instances of endpoint %v: %w", c.r.cfg.Endpoint, t.Stale)
		case over || t.listed && !t.unasked && c.r.cfg.Wait <= 0:
			return c.nobodyListed(t)
		case expired == nil && c.r.cfg.Wait > 0:
			c.r.log.Info("waiting for an instance", "request", c.req.ID, "endpoint", c.r.cfg.Endpoint, "for", c.r.cfg.Wait)
			timer := time.NewTimer(c.r.cfg.Wait)
			defer timer.Stop()
			expired = timer.C
		}
		select {
		case <-t.replaced:
		case <-ctx.Done():
			return c.contextError(ctx)
		case <-c.r.ctx.Done():
		case <-expired:
			over = true
		}
	}
}

// nobodyListed says that t's source lacks whom the request asks for.
func (c *call) nobodyListed(t *Tiers) error {
	err := c.noInstances(t, c.r.cfg.Wait)
	if !t.listed {
		err.Stale = errors.New("no answer yet")
	}
	if err.Wanted = c.req.Instance; err.Wanted != "" {
		for _, p := range t.Source {
			err.Known = append(err.Known, label(p.Instance))
		}
	}
	return err
}

// noInstances says why no instance of t will do.
func (c *call) noInstances(t *Tiers, waited time.Duration) *NoInstancesError {
	err := &NoInstancesError{Endpoint: c.r.cfg.Endpoint, Source: len(t.Source), Waited: waited, Stale: t.Stale}
	var next time.Time
	for _, p := range t.Source {
		if d, down := t.Down[p.ID]; down {
			err.Down++
			if next.IsZero() || d.Until.Before(next) {
				next = d.Until
			}
		} else if c.hasTried(p) {
			err.Tried++
		}
	}
	if err.Down > 0 {
		err.Next = max(time.Until(next), 0)
	}
	return err
}

// hasTried reports whether p has broken or refused the request. It goes by the
// id: an instance that left and came back is the same.
func (c *call) hasTried(p *Peer) bool { return slices.Contains(c.tried, p.ID) }

// contextError says that ctx has ended, and why if its owner gave a cause.
func (c *call) contextError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return fmt.Errorf("request %s: %w", c.req.ID, cause)
	}
	return fmt.Errorf("request %s: %w: %w", c.req.ID, err, cause)
}
