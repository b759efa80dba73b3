// Package routertest has what a test of a program with a router needs, so that it takes
// no socket and no time: a client that plays answers and breaks, the instances for it, and
// a picker that takes the first. Within testing/synctest, cooldowns and waits take no time
// either.
package routertest

import (
	"context"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/stream"
)

// Play is what an instance does with one request.
type Play struct {
	// Items is the answer from its first item on. A request that asks from a later item,
	// by index or behind a prefix, gets those from there.
	Items []stream.Annotated
	// Err is how the stream ends: nil completes the answer. A [stream.Kind], such as
	// [stream.Truncated], breaks it.
	Err error
	// Every is the time that passes before each item, and before the end.
	Every time.Duration
}

// Texts returns items whose data are strings.
func Texts(texts ...string) []stream.Annotated {
	items := make([]stream.Annotated, len(texts))
	for n, text := range texts {
		items[n].Data = stream.String(text)
	}
	return items
}

// Client is a [router.Client] whose instances play what they are told. It is safe for
// concurrent use; Plays must not be changed once requests are made.
type Client struct {
	// Plays holds what the instances do, by their names: the first play is for the first
	// request, and so on; the last one is for all that follow. An instance that has none
	// is [stream.Unreachable].
	Plays map[string][]Play

	mu    sync.Mutex // guards calls
	calls []Call
}

// Call is a request that an instance got.
type Call struct {
	Instance discovery.Instance
	Request  stream.Request
}

// Stream plays the next play of i.
func (c *Client) Stream(ctx context.Context, i discovery.Instance, req stream.Request) iter.Seq2[stream.Annotated, error] {
	return func(yield func(stream.Annotated, error) bool) {
		play := c.next(i, req)
		if play.Err == nil || len(play.Items) > 0 {
			started(req)
		}
		for _, item := range play.Items[min(req.From, len(play.Items)):] {
			if err := pass(ctx, play.Every); err != nil {
				yield(stream.Annotated{}, err)
				return
			}
			if !yield(item, nil) {
				return
			}
		}
		err := pass(ctx, play.Every)
		if err == nil {
			err = play.Err
		}
		if err != nil {
			yield(stream.Annotated{}, err)
		}
	}
}

func started(req stream.Request) {
	if req.Hooks != nil && req.Hooks.Started != nil {
		req.Hooks.Started()
	}
}

// next returns what i plays now.
func (c *Client) next(i discovery.Instance, req stream.Request) Play {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, call := range c.calls {
		if call.Instance.Name == i.Name {
			n++
		}
	}
	c.calls = append(c.calls, Call{i, req})
	plays := c.Plays[i.Name]
	if len(plays) == 0 {
		return Play{Err: stream.Unreachable}
	}
	return plays[min(n, len(plays)-1)]
}

// Calls returns the requests so far, in the order in which they came.
func (c *Client) Calls() []Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.calls)
}

// pass waits, and returns ctx's error if ctx ends first.
func pass(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Source returns a source that lists an instance for each name, with the ids 1, 2 and so
// on. They resume by index.
func Source(names ...string) router.Source {
	instances := make([]discovery.Instance, len(names))
	for n, name := range names {
		instances[n] = discovery.Instance{
			ID: discovery.InstanceID(n + 1), Name: name, Transport: discovery.NDJSON, Address: name, Resume: discovery.ResumeIndex,
		}
	}
	return discovery.Static(instances...)
}

// First returns a picker that picks the first instance, which is the one with the lowest
// id, so that a test knows who is asked.
func First() router.Picker { return first{} }

type first struct{}

func (first) Pick(_ router.Choice, avail []*router.Peer) *router.Peer { return avail[0] }
