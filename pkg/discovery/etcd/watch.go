package etcd

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/request-migration/migrate/pkg/discovery"
)

// listPage is how many records one request lists, so that no answer is large.
const listPage = 1000

// Watch implements [discovery.Store]. A first list that fails in passing is
// repeated for up to 5 seconds; where etcd has lost its quorum, a member tells
// what it knows after 2, and the set is marked stale. A set is marked stale when
// etcd can't be read, and after 6 seconds without an answer on a connection that
// stands.
//
// A change is told of at once, and the next ones together after a pause: see
// [pace].
func (s *Store) Watch(ctx context.Context, prefix string) iter.Seq2[discovery.Snapshot, error] {
	return func(yield func(discovery.Snapshot, error) bool) {
		if err := s.watch(ctx, prefix, func(snap discovery.Snapshot) bool { return yield(snap, nil) }); err != nil {
			yield(discovery.Snapshot{}, err)
		}
	}
}

// watch yields sets until it fails, or yield asks for no more: then it returns
// nil.
func (s *Store) watch(caller context.Context, prefix string, yield func(discovery.Snapshot) bool) error {
	if err := discovery.CheckPrefix(prefix); err != nil {
		return err
	}
	ctx, leave, err := s.enter(caller)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	f := &follower{store: s, prefix: prefix, view: newView()}
	s.following(f, true)
	var failure error // set before ended is closed
	ended := make(chan struct{})
	go func() {
		defer leave()
		defer close(ended)
		failure = f.run(ctx)
	}()
	defer func() {
		s.following(f, false)
		cancel()
		<-ended
	}()
	rested := time.NewTimer(0) // until then no set is yielded
	defer rested.Stop()
	for {
		select {
		case <-ended:
		case <-ctx.Done():
		case <-rested.C:
			select {
			case <-ended:
			case <-ctx.Done():
			case <-f.view.changed:
			}
		}
		// Several may be true; a further set is not wanted then.
		switch {
		case caller.Err() != nil:
			return caller.Err()
		case s.ctx.Err() != nil:
			return context.Cause(s.ctx)
		case ctx.Err() != nil:
			<-ended // by itself
			return failure
		}
		select {
		case <-ended:
			return failure
		default:
		}
		snap := f.view.take()
		rested.Reset(pace(len(snap.Records)))
		if !yield(snap) {
			return nil
		}
	}
}

// pace returns the time from one set to the next while records keep changing. A
// set costs its reader about a microsecond a record, so that reading takes a
// tenth of the time, however many there are; under 5 ms, which nobody notices,
// a pause would gain nothing, and above a second everybody would notice.
func pace(records int) time.Duration {
	return min(max(time.Duration(records)*10*time.Microsecond, 5*time.Millisecond), time.Second)
}

// following takes note of a watch that begins or ends.
func (s *Store) following(f *follower, begins bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if begins {
		s.followers[f] = struct{}{}
	} else {
		delete(s.followers, f)
	}
}

// leaseOf returns the lease that a key stands under, as a watch has heard.
func (s *Store) leaseOf(key string) (lease clientv3.LeaseID, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for f := range s.followers {
		if !strings.HasPrefix(key, f.prefix) {
			continue
		}
		if lease, known := f.view.lease(key); known {
			return lease, true
		}
	}
	return 0, false
}

// list returns the records under prefix as they are at one revision.
func (s *Store) list(ctx context.Context, prefix string, options ...clientv3.OpOption) (l listing, err error) {
	from, end := prefix, clientv3.GetPrefixRangeEnd(prefix)
	for {
		var page *clientv3.GetResponse
		err := s.call(ctx, func(ctx context.Context) (err error) {
			page, err = s.client.Get(ctx, from, append(options, clientv3.WithRange(end), clientv3.WithLimit(listPage), clientv3.WithRev(l.rev))...)
			return err
		})
		if err != nil {
			return listing{}, fmt.Errorf("listing %s: %w", prefix, err)
		}
		if l.rev == 0 {
			l.rev = page.Header.Revision
		}
		for _, kv := range page.Kvs {
			l.records = append(l.records, discovery.Record{Key: string(kv.Key), Value: kv.Value})
			l.leases = append(l.leases, kv.Lease)
		}
		if !page.More {
			s.log.Debug("snapshot", "prefix", prefix, "records", len(l.records), "revision", l.rev)
			return l, nil
		}
		from = l.records[len(l.records)-1].Key + "\x00" // the first key after it
	}
}
