package etcd

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// quiet is how long a watch hears nothing before it asks for a sign of life,
// and how long it waits for that. An etcd that hangs is found within 6 s; a
// fleet of 10,000 idle watches asks 3,000 times a second, which etcd answers
// without touching its data.
const quiet = 3 * time.Second

// follower keeps one watch's view up to date.
type follower struct {
	store  *Store
	prefix string
	view   *view
}

// run follows etcd until ctx ends, or the first list fails, and returns why it
// ended.
func (f *follower) run(ctx context.Context) error {
	rev, err := f.first(ctx)
	if err != nil {
		return err
	}
	var pause backoff
	for {
		began := time.Now()
		reason := f.follow(ctx, rev)
		if ctx.Err() != nil {
			return reason
		}
		f.store.log.Debug("watch ended, listing again", "prefix", f.prefix, "error", reason)
		if unanswered(reason) {
			f.view.fail(reason) // a list may take as long again to say so
		}
		if time.Since(began) > quiet {
			pause = backoff{} // it had worked
		} else if !pause.wait(ctx) {
			return ctx.Err()
		}
		var ok bool
		if rev, ok = f.again(ctx, &pause); !ok {
			return ctx.Err()
		}
	}
}

// first makes the view's first set.
func (f *follower) first(ctx context.Context) (rev int64, err error) {
	end := time.Now().Add(f.store.patience)
	var pause backoff
	for {
		rev, err := f.list(ctx)
		if err == nil || !transient(err) || time.Now().After(end) || !pause.wait(ctx) {
			return rev, err
		}
	}
}

// again lists until that succeeds, and reports false if ctx ended first.
func (f *follower) again(ctx context.Context, pause *backoff) (rev int64, ok bool) {
	for {
		rev, err := f.list(ctx)
		if err == nil {
			return rev, true
		}
		if ctx.Err() != nil {
			return 0, false
		}
		f.view.fail(err)
		if !pause.wait(ctx) {
			return 0, false
		}
	}
}

func (f *follower) list(ctx context.Context) (rev int64, err error) {
	records, rev, err := f.store.list(ctx, f.prefix)
	if err != nil {
		return 0, err
	}
	f.view.reset(records)
	return rev, nil
}

// follow applies the changes after a revision until the watch's stream ends,
// and returns why it did.
func (f *follower) follow(ctx context.Context, rev int64) error {
	// A member that has lost its leader then ends the stream instead of leaving
	// it without news.
	ctx, cancel := context.WithCancelCause(clientv3.WithRequireLeader(ctx))
	defer cancel(nil)

	// Opening waits for a connection.
	timer := time.AfterFunc(requestTimeout, func() { cancel(noAnswer(requestTimeout)) })
	stream, err := f.open(ctx, rev)
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
	asked := true // the request for the watch is a first question
	for {
		select {
		case answer, ok := <-answers:
			if !ok {
				return explain(ctx, failure)
			}
			if answer.Canceled {
				return cancelled(answer)
			}
			f.view.apply(answer.Events)
			if len(answer.Events) > 0 {
				f.store.log.Debug("snapshot changed", "prefix", f.prefix,
					"changes", len(answer.Events), "revision", answer.Header.GetRevision())
			}
			asked = false
			silence.Reset(quiet)
		case <-silence.C:
			if asked {
				return noAnswer(quiet)
			}
			if err := stream.Send(progressRequest()); err != nil {
				continue // the receiver says why
			}
			asked = true
			silence.Reset(quiet)
		}
	}
}

// open starts the stream. etcd's own watcher is not used: it takes a failed
// stream up again by itself without a word, and nobody would know that the set
// is stale.
func (f *follower) open(ctx context.Context, rev int64) (etcdserverpb.Watch_WatchClient, error) {
	client := etcdserverpb.NewWatchClient(f.store.client.ActiveConnection())
	stream, err := client.Watch(ctx, grpc.MaxCallRecvMsgSize(math.MaxInt32))
	if err != nil {
		return nil, err
	}
	return stream, stream.Send(&etcdserverpb.WatchRequest{
		RequestUnion: &etcdserverpb.WatchRequest_CreateRequest{
			CreateRequest: &etcdserverpb.WatchCreateRequest{
				Key:           []byte(f.prefix),
				RangeEnd:      []byte(clientv3.GetPrefixRangeEnd(f.prefix)),
				StartRevision: rev + 1,
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
