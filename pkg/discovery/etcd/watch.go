package etcd

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/internal/remote"
)

// listPage is how many records one request lists, which bounds the answers.
const listPage = 1000

// Watch implements [discovery.Store]. A first list that fails for a passing reason is
// repeated for up to 5 seconds. If etcd has no quorum, the watch yields after 2
// seconds what a single member knows, marked stale. Later sets are marked stale when
// etcd can't be read, which on a silent connection takes 6 seconds to notice.
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
	f := &follower{store: s, prefix: prefix, view: newView()}
	s.following(f, true)
	defer s.following(f, false)
	return s.life.Watch(caller, remote.View{Changed: f.view.changed, Take: f.view.take}, f.run, yield)
}

// following notes that a watch begins or ends.
func (s *Store) following(f *follower, begins bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if begins {
		s.followers[f] = struct{}{}
	} else {
		delete(s.followers, f)
	}
}

// leaseOf returns the lease of a key that one of the watches knows.
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

// list returns the records under prefix at one revision.
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

const (
	// quiet is how long a watch is silent before it asks for its progress, and
	// answering how long it waits for the answer before it reads instead. With the
	// timeout of that request, an etcd that hangs is noticed within 6 s. A fleet of
	// 10,000 idle watches asks 3,000 times a second, which etcd answers without
	// touching its data.
	quiet     = 3 * time.Second
	answering = time.Second

	// election is how long a watch waits for etcd to elect a leader, which takes
	// about a second, before it asks a single member.
	election = 2 * time.Second
)

// errMissed says that a watch's stream did not deliver all changes.
var errMissed = errors.New("the watch has missed changes")

// A follower keeps one watch's view up to date.
type follower struct {
	store  *Store
	prefix string
	view   *view
}

// run follows etcd until ctx ends or the first list fails, and returns the reason.
func (f *follower) run(ctx context.Context) error {
	if err := f.first(ctx); err != nil {
		return err
	}
	var pause remote.Backoff
	for {
		began := time.Now()
		reason := f.follow(ctx)
		if ctx.Err() != nil {
			return reason
		}
		f.store.log.Debug("watch ended, listing again", "prefix", f.prefix, "error", reason)
		if time.Since(began) > quiet {
			pause = remote.Backoff{} // this stream worked
		}
		// The watches of a whole fleet may have ended at the same moment.
		if !pause.Wait(ctx, 0) || !f.again(ctx, &pause) {
			return ctx.Err()
		}
	}
}

// first lists the view's first set. It returns once the view has a current one.
func (f *follower) first(ctx context.Context) error {
	began := time.Now()
	var pause remote.Backoff
	for {
		list, err := f.store.list(ctx, f.prefix)
		if err == nil {
			f.view.reset(list, nil)
			return nil
		}
		if !transient(err) {
			return err
		}
		waited := time.Since(began)
		if waited >= election {
			// Without a quorum a member can still be asked what it knows.
			if list, alone := f.store.list(ctx, f.prefix, clientv3.WithSerializable()); alone == nil {
				f.view.reset(list, err)
				if !f.again(ctx, &pause) {
					return ctx.Err()
				}
				return nil
			}
		}
		if waited > f.store.patience || !pause.Wait(ctx, 0) {
			return err
		}
	}
}

// again lists until that succeeds, and returns false if ctx ended first. An election
// alone does not make the set stale.
func (f *follower) again(ctx context.Context, pause *remote.Backoff) bool {
	began := time.Now()
	for {
		list, err := f.store.list(ctx, f.prefix)
		if err == nil {
			f.view.reset(list, nil)
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		if !refusedInPassing(err) || time.Since(began) >= election {
			f.view.fail(err)
		}
		if !pause.Wait(ctx, 0) {
			return false
		}
	}
}

// follow applies the changes since the view's revision until the stream ends or has
// missed changes, and returns the reason.
func (f *follower) follow(ctx context.Context) error {
	// A member without a leader then ends the stream. Otherwise the stream would
	// just be silent.
	ctx, cancel := context.WithCancelCause(clientv3.WithRequireLeader(ctx))
	defer cancel(nil)

	// Opening a stream waits for a connection.
	timer := time.AfterFunc(requestTimeout, func() { cancel(remote.NoAnswer(requestTimeout)) })
	stream, err := f.open(ctx)
	timer.Stop()
	if err != nil {
		return explain(ctx, err)
	}

	answers := make(chan *etcdserverpb.WatchResponse)
	var failure error // set before answers is closed
	var receiver sync.WaitGroup
	receiver.Go(func() {
		defer close(answers)
		for {
			answer, err := stream.Recv()
			if err != nil {
				failure = err
				return
			}
			select {
			case answers <- answer:
			case <-ctx.Done():
				failure = ctx.Err()
				return
			}
		}
	})
	defer receiver.Wait()
	defer cancel(nil)

	silence := time.NewTimer(quiet)
	defer silence.Stop()
	begun := false // etcd has answered on the stream
	asked := false // etcd owes an answer about the progress
	deaf := false  // such answers don't come, as behind some proxies
	for {
		select {
		case answer, ok := <-answers:
			if !ok {
				return explain(ctx, failure)
			}
			if answer.Canceled {
				return cancelled(answer)
			}
			if n := f.view.apply(answer.Events); n > 0 {
				f.store.log.Debug("snapshot changed", "prefix", f.prefix,
					"changes", n, "revision", answer.Header.GetRevision())
			}
			deaf = deaf && (answer.Created || len(answer.Events) > 0)
			begun, asked = true, false
			silence.Reset(quiet)
			continue
		case <-silence.C:
		}
		switch {
		case !begun:
			return remote.NoAnswer(quiet)
		case !asked && !deaf:
			if err := stream.Send(progressRequest()); err != nil {
				continue // the receiver gets the reason
			}
			asked = true
			silence.Reset(answering)
		default:
			if err := f.check(ctx); err != nil {
				return err
			}
			asked, deaf = false, true
			silence.Reset(quiet)
		}
	}
}

// check reads whether etcd has changes that the view does not have. The request is
// small, and cheap for etcd unless something was written: then etcd passes over the
// keys. If the request fails, the set is stale.
func (f *follower) check(ctx context.Context) error {
	rev, records := f.view.position()
	var newer *clientv3.GetResponse
	unwritten := false
	err := f.store.call(ctx, func(ctx context.Context) error {
		now, err := f.store.client.Get(ctx, f.prefix) // for the revision: no record has this key
		if err != nil {
			return err
		}
		if unwritten = now.Header.Revision == rev; unwritten {
			return nil
		}
		newer, err = f.store.client.Get(ctx, f.prefix, clientv3.WithPrefix(),
			clientv3.WithMinModRev(rev+1), clientv3.WithLimit(1), clientv3.WithKeysOnly())
		return err
	})
	if err != nil {
		err = fmt.Errorf("reading %s: %w", f.prefix, err)
		if ctx.Err() == nil {
			f.view.fail(err)
		}
		return err
	}
	if unwritten {
		return nil
	}
	// The count, which is of all records, shows deletions, and a lower revision
	// that etcd was restored from a backup.
	if len(newer.Kvs) > 0 || newer.Count != int64(records) || newer.Header.Revision < rev {
		return errMissed
	}
	f.view.advance(newer.Header.Revision)
	return nil
}

// open starts the stream. It does not use the watcher of etcd's client, which
// silently reopens a failed stream, so that nobody would know that the set is stale.
//
// The stream starts at the view's own revision, not at the next one: until somebody
// writes the next one, etcd would answer no question about progress.
func (f *follower) open(ctx context.Context) (etcdserverpb.Watch_WatchClient, error) {
	client := etcdserverpb.NewWatchClient(f.store.client.ActiveConnection())
	stream, err := client.Watch(ctx, grpc.MaxCallRecvMsgSize(math.MaxInt32))
	if err != nil {
		return nil, err
	}
	rev, _ := f.view.position()
	return stream, stream.Send(&etcdserverpb.WatchRequest{
		RequestUnion: &etcdserverpb.WatchRequest_CreateRequest{
			CreateRequest: &etcdserverpb.WatchCreateRequest{
				Key:           []byte(f.prefix),
				RangeEnd:      []byte(clientv3.GetPrefixRangeEnd(f.prefix)),
				StartRevision: rev,
			},
		},
	})
}

func progressRequest() *etcdserverpb.WatchRequest {
	return &etcdserverpb.WatchRequest{
		RequestUnion: &etcdserverpb.WatchRequest_ProgressRequest{
			ProgressRequest: &etcdserverpb.WatchProgressRequest{},
		},
	}
}

// cancelled returns the reason why etcd ended the watch.
func cancelled(answer *etcdserverpb.WatchResponse) error {
	if answer.CompactRevision != 0 {
		return rpctypes.ErrCompacted
	}
	return fmt.Errorf("watch cancelled: %s", answer.CancelReason)
}
