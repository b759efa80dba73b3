package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/internal/remote"
)

// Watch implements [discovery.Store]. A first list that fails for a passing reason is
// repeated for up to 5 seconds. Later sets are marked stale when the API server can't be
// read, which on a silent connection takes 6 seconds to notice.
//
// The first of several changes is yielded at once, and the next ones together after
// a pause: 9 µs a record, between 5 ms and 1 s.
func (s *Store) Watch(ctx context.Context, prefix string) iter.Seq2[discovery.Snapshot, error] {
	return func(yield func(discovery.Snapshot, error) bool) {
		if err := s.watch(ctx, prefix, func(snap discovery.Snapshot) bool { return yield(snap, nil) }); err != nil {
			yield(discovery.Snapshot{}, err)
		}
	}
}

// watch yields sets until it fails. It returns nil if yield wants no more.
func (s *Store) watch(caller context.Context, prefix string, yield func(discovery.Snapshot) bool) error {
	if err := discovery.CheckPrefix(prefix); err != nil {
		return err
	}
	f := &follower{store: s, prefix: prefix, selector: selector(prefix), view: newView(s, prefix)}
	return s.life.Watch(caller, remote.View{Changed: f.view.changed, Take: f.view.take}, f.run, yield)
}

const (
	// quiet is how long the store hears nothing at all from the API server before a
	// watch asks for a sign of life. With the timeout of that request, a server that
	// hangs is noticed within 6 s. Where servers renew their records nobody has to ask.
	quiet = 3 * time.Second
	// deaf is how long one stream may be silent. The API server sends a bookmark
	// every minute or so.
	deaf = 3 * time.Minute
	// passing is how long the API server may refuse a list for a passing reason, such
	// as too many requests, before the set is stale.
	passing = 2 * time.Second
	// standstill is how late a timer fires if this process did not run.
	standstill = time.Second
	// minStream and maxStream are how long one stream lasts, as in client-go, so that
	// the streams of a fleet spread over several API servers.
	minStream = 5 * time.Minute
	maxStream = 10 * time.Minute
)

var (
	// errRelisted says that the view was listed anew, so that its stream is out of date.
	errRelisted = errors.New("listed again")
	errDeaf     = errors.New("the watch is silent")
)

// A follower keeps one watch's view up to date.
type follower struct {
	store    *Store
	prefix   string
	selector string
	view     *view
}

// run follows the API server until ctx ends or the first list fails, and returns the
// reason.
func (f *follower) run(ctx context.Context) error {
	if err := f.first(ctx); err != nil {
		return err
	}
	f.store.startSweeper()
	var pause remote.Backoff
	for {
		began := time.Now()
		reason := f.follow(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(began) > quiet || errors.Is(reason, errRelisted) {
			pause = remote.Backoff{} // this stream worked
		}
		if errors.Is(reason, errRelisted) || errors.Is(reason, errDeaf) {
			continue
		}
		f.store.log.Debug("watch ended", "prefix", f.prefix, "error", reason)
		// The watches of a whole fleet may have ended at the same moment.
		if !pause.Wait(ctx, askedBy(reason)) {
			return ctx.Err()
		}
		if errors.Is(reason, errWatchEnded) {
			continue // nothing was missed
		}
		if !f.again(ctx, &pause) {
			return ctx.Err()
		}
	}
}

func (f *follower) list(ctx context.Context) (listing, error) {
	l, err := f.store.listAll(ctx, f.selector, false)
	if err != nil {
		return l, fmt.Errorf("listing %s: %w", f.prefix, err)
	}
	f.store.log.Debug("snapshot", "prefix", f.prefix, "objects", len(l.objects), "version", l.version)
	return l, nil
}

// first lists the view's first set.
func (f *follower) first(ctx context.Context) error {
	return f.store.insist(ctx, func(ctx context.Context) error {
		l, err := f.list(ctx)
		if err == nil {
			f.view.reset(l, true)
		}
		return err
	})
}

// again lists until that succeeds, and returns false if ctx ended first.
func (f *follower) again(ctx context.Context, pause *remote.Backoff) bool {
	began := time.Now()
	away := false
	for {
		l, err := f.list(ctx)
		if err == nil {
			f.view.reset(l, away || time.Since(began) > standstill)
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		_, answered := errors.AsType[*apierrors.StatusError](err)
		if away = true; !answered || !transient(err) || time.Since(began) >= passing {
			f.view.fail(err)
		}
		if !pause.Wait(ctx, askedBy(err)) {
			return false
		}
	}
}

// An event is one event of a stream.
type event struct {
	kind   string
	object object
}

// follow applies the changes since the view's version until the stream ends, and returns
// the reason.
func (f *follower) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, err := f.open(ctx, cancel)
	if err != nil {
		return err
	}
	events := make(chan event)
	var failure error // set before events is closed
	var receiver sync.WaitGroup
	receiver.Go(func() {
		defer close(events)
		for {
			kind, o, err := stream.next()
			if err != nil {
				failure = err
				return
			}
			f.store.access.hear()
			select {
			case events <- event{kind, o}:
			case <-ctx.Done():
				failure = ctx.Err()
				return
			}
		}
	})
	defer receiver.Wait()
	defer stream.close()
	defer cancel(nil)

	alarm := newAlarm()
	defer alarm.timer.Stop()
	if err := f.look(ctx, alarm); err != nil {
		return err
	}
	silence := time.NewTimer(quiet)
	defer silence.Stop()
	last := time.Now()
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return f.store.explain(ctx, "watch", failure)
			}
			last = time.Now()
			changed, due := f.view.apply(e.kind, e.object)
			if changed {
				f.store.log.Debug("snapshot changed", "prefix", f.prefix, "object", e.object.name, "version", e.object.version)
			}
			alarm.before(due)
		case <-alarm.timer.C:
			if err := f.look(ctx, alarm); err != nil {
				return err
			}
		case <-silence.C:
			if time.Since(last) > deaf {
				return errDeaf
			}
			if f.store.access.silence() >= quiet {
				if err := f.check(ctx); err != nil {
					return err
				}
			}
			silence.Reset(max(quiet-f.store.access.silence(), quiet/10))
		}
	}
}

// open opens the stream from the view's version on.
func (f *follower) open(ctx context.Context, cancel context.CancelCauseFunc) (*eventReader, error) {
	timer := time.AfterFunc(requestTimeout, func() { cancel(remote.NoAnswer(requestTimeout)) })
	defer timer.Stop()
	timeout := minStream + rand.N(maxStream-minStream)
	stream, err := f.store.access.watch(ctx, f.selector, f.view.position(), timeout)
	return stream, f.store.explain(ctx, "watch", err)
}

// look removes what has expired and sets the alarm for the next time. Before it takes a
// record that nobody has renewed to be dead it lists all: perhaps the stream is late.
func (f *follower) look(ctx context.Context, alarm *alarm) error {
	if alarm.late() > standstill {
		f.view.pardon()
	}
	overdue, next := f.view.expire()
	if !overdue {
		alarm.set(next)
		return nil
	}
	l, err := f.list(ctx)
	if err != nil {
		if ctx.Err() == nil {
			f.view.fail(err)
		}
		return err
	}
	f.view.reset(l, false)
	f.view.bury()
	return errRelisted
}

// check asks the API server for a sign of life. If it gives none the set is stale.
func (f *follower) check(ctx context.Context) error {
	err := f.store.call(ctx, "list", f.store.access.check)
	if err == nil || apierrors.IsTooManyRequests(err) {
		return nil
	}
	if ctx.Err() == nil {
		f.view.fail(err)
	}
	return err
}

// An alarm is a timer that knows what it is set to.
type alarm struct {
	timer *time.Timer
	at    time.Time // the zero time: it is not set
}

func newAlarm() *alarm {
	a := &alarm{timer: time.NewTimer(time.Hour)}
	a.timer.Stop()
	return a
}

// set sets the alarm, or turns it off with the zero time.
func (a *alarm) set(at time.Time) {
	if a.at = at; at.IsZero() {
		a.timer.Stop()
		return
	}
	a.timer.Reset(time.Until(at))
}

// before sets the alarm if it is not set to an earlier time. The zero time changes nothing.
func (a *alarm) before(at time.Time) {
	if next := earlier(a.at, at); !next.Equal(a.at) {
		a.set(next)
	}
}

// late returns how much later than it was set to the alarm went off.
func (a *alarm) late() time.Duration {
	if a.at.IsZero() {
		return 0
	}
	return time.Since(a.at)
}
