package etcd

import (
	"context"
	"fmt"
	"iter"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/request-migration/migrate/pkg/discovery"
)

// listPage is how many records one request lists, so that no answer is large.
const listPage = 1000

// Watch implements [discovery.Store]. A first list that fails in passing is
// repeated for up to 5 seconds. A set is marked stale when etcd can't be
// reached, and after 6 seconds without an answer on a connection that stands.
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
	var failure error // set before ended is closed
	ended := make(chan struct{})
	go func() {
		defer leave()
		defer close(ended)
		failure = f.run(ctx)
	}()
	defer func() {
		cancel()
		<-ended
	}()
	for {
		select {
		case <-ended:
			return s.ending(caller, ctx, failure)
		case <-ctx.Done():
			return s.ending(caller, ctx, nil)
		case <-f.view.changed:
			// Both may be true; then a further set is not wanted.
			if ctx.Err() != nil {
				return s.ending(caller, ctx, nil)
			}
			if !yield(f.view.take()) {
				return nil
			}
		}
	}
}

// ending returns what ended a watch: its caller, Close, or a failure.
func (s *Store) ending(caller, ctx context.Context, err error) error {
	if caller.Err() != nil {
		return caller.Err()
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// list returns the records under prefix, sorted, as they are at the returned
// revision.
func (s *Store) list(ctx context.Context, prefix string) (records []discovery.Record, rev int64, err error) {
	from, end := prefix, clientv3.GetPrefixRangeEnd(prefix)
	for {
		var page *clientv3.GetResponse
		err := s.call(ctx, func(ctx context.Context) (err error) {
			page, err = s.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(listPage), clientv3.WithRev(rev))
			return err
		})
		if err != nil {
			return nil, 0, fmt.Errorf("listing %s: %w", prefix, err)
		}
		if rev == 0 {
			rev = page.Header.Revision
		}
		for _, kv := range page.Kvs {
			records = append(records, discovery.Record{Key: string(kv.Key), Value: kv.Value})
		}
		if !page.More {
			s.log.Debug("snapshot", "prefix", prefix, "records", len(records), "revision", rev)
			return records, rev, nil
		}
		from = records[len(records)-1].Key + "\x00" // the first key after it
	}
}
