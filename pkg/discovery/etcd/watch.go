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

const (
	// quiet is how long a watch hears nothing before it asks for a sign of life,
	// and answering how long it waits for that before it reads instead. An etcd
	// that hangs is found within 6 s, which a request's timeout completes; a fleet
	// of 10,000 idle watches asks 3,000 times a second, which etcd answers without
	// touching its data.
	quiet     = 3 * time.Second
	answering = time.Second

	// election is how long etcd may take to find another leader, a second or so,
	// before its members are asked for what each knows by itself.
	election = 2 * time.Second
)

// errMissed says that a watch's stream is behind what etcd has.
var errMissed = errors.New("the watch has missed changes")

// follower keeps one watch's view up to date.
type follower struct {
	store  *Store
	prefix string
	view   *view
}

// run follows etcd until ctx ends, or the first list fails, and returns why it
// ended.
func (f *follower) run(ctx context.Context) error {
	if err := f.first(ctx); err != nil {
		return err
	}
	var pause backoff
	for {
		began := time.Now()
		reason := f.follow(ctx)
		if ctx.Err() != nil {
			return reason
		}
		f.store.log.Debug("watch ended, listing again", "prefix", f.prefix, "error", reason)
		if time.Since(began) > quiet {
			pause = backoff{} // it had worked
		}
		// The watches of a whole fleet may have ended at one moment.
		if !pause.wait(ctx) || !f.again(ctx, &pause) {
			return ctx.Err()
		}
	}
}

// first makes the view's first set. It returns once that is current, or stale
// and being read again.
func (f *follower) first(ctx context.Context) error {
	began := time.Now()
	var pause backoff
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
			// Without a quorum a member still tells what it knows.
			if list, alone := f.store.list(ctx, f.prefix, clientv3.WithSerializable()); alone == nil {
				f.view.reset(list, err)
				if !f.again(ctx, &pause) {
					return ctx.Err()
				}
				return nil
			}
		}
		if waited > f.store.patience || !pause.wait(ctx) {
			return err
		}
	}
}

// again lists until that succeeds, and reports false if ctx ended first. An
// election alone does not make the set stale.
func (f *follower) again(ctx context.Context, pause *backoff) bool {
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
		if !pause.wait(ctx) {
			return false
		}
	}
}

// follow applies the changes since the view's revision until the watch's stream
// ends or turns out not to tell of them, and returns why.
func (f *follower) follow(ctx context.Context) error {
	// A member that has lost its leader then ends the stream instead of leaving
	// it without news.
	ctx, cancel := context.WithCancelCause(clientv3.WithRequireLeader(ctx))
	defer cancel(nil)

	// Opening waits for a connection.
	timer := time.AfterFunc(requestTimeout, func() { cancel(noAnswer(requestTimeout)) })
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
	begun := false // the stream has been answered
	asked := false // it owes an answer about its progress
	deaf := false  // it does not give such answers, as behind some proxies
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
			return noAnswer(quiet)
		case !asked && !deaf:
			if err := stream.Send(progressRequest()); err != nil {
				continue // the receiver says why
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

// check reads whether etcd has anything that the view has not. It costs the
// network next to nothing, and etcd too unless something was written: then, a
// pass over the keys. If it fails, nobody knows what the set is.
func (f *follower) check(ctx context.Context) error {
	rev, records := f.view.position()
	var newer *clientv3.GetResponse
	unwritten := false
	err := f.store.call(ctx, func(ctx context.Context) error {
		now, err := f.store.client.Get(ctx, f.prefix) // no record has such a key
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
	// The count is of all records, and tells of those that are gone; the revision
	// of an etcd that was put back to an earlier state.
	if len(newer.Kvs) > 0 || newer.Count != int64(records) || newer.Header.Revision < rev {
		return errMissed
	}
	f.view.advance(newer.Header.Revision)
	return nil
}

// open starts the stream. etcd's own watcher is not used: it takes a failed
// stream up again by itself without a word, and nobody would know that the set
// is stale.
//
// It begins with the view's own revision, not the one after it, which etcd has
// only when somebody writes: until then it answers no question about progress.
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

// cancelled returns why etcd ended the watch.
func cancelled(answer *etcdserverpb.WatchResponse) error {
	if answer.CompactRevision != 0 {
		return rpctypes.ErrCompacted
	}
	return fmt.Errorf("watch cancelled: %s", answer.CancelReason)
}
