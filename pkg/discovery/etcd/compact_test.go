package etcd

import (
	"context"
	"errors"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/etcd/etcdtest"
)

// compact makes etcd forget all revisions but the latest.
func compact(t *testing.T, client *clientv3.Client) {
	t.Helper()
	now, err := client.Get(t.Context(), "v1/", clientv3.WithKeysOnly())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Compact(t.Context(), now.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
}

func TestCompactedUnderWatch(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	tr := trouble(t, at(server), at(server))
	behind := etcdtest.Client(t, server)
	for _, value := range []string{"2", "3", "4"} {
		put(t, tr.owner, two, value, 0)
		compact(t, behind)
		tr.watch.until("value "+value, func(snap discovery.Snapshot) bool { return values(snap)[two] == value })
	}
}

// TestFollowFromCompacted asks for changes that etcd has forgotten, like a watch that was
// delayed between its list and its stream.
func TestFollowFromCompacted(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, etcdtest.Config{})
	s := openStore(t, at(server))
	for _, value := range []string{"1", "2", "3"} {
		put(t, s, one, value, 0)
	}
	compact(t, etcdtest.Client(t, server))

	f := &follower{store: s, prefix: prefix, view: newView()}
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	f.view.reset(listing{rev: 1}, nil)
	if err := f.follow(ctx); !errors.Is(err, rpctypes.ErrCompacted) {
		t.Errorf("following from a compacted revision ended with %v, want %v", err, rpctypes.ErrCompacted)
	}

	// The whole follower lists again, and its set never becomes stale.
	f = &follower{store: s, prefix: prefix, view: newView()}
	done := make(chan error, 1)
	go func() { done <- f.run(ctx) }()
	<-f.view.changed
	if snap := f.view.take(); snap.Stale != nil || values(snap)[one] != "3" {
		t.Errorf("the follower has %v, stale: %v", values(snap), snap.Stale)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the follower ended with %v, want %v", err, context.Canceled)
	}
}
