package storetest

import (
	"context"
	"iter"
	"sync"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

// handle is one owner's view of a shared [discovery.Mem]: a sound store, which
// the broken ones embed and break in one way each.
type handle struct {
	*discovery.Mem
	ctx context.Context // ended by Close
	end context.CancelFunc

	mu   sync.Mutex // guards kept
	kept []discovery.Lease
}

func newHandle(shared *discovery.Mem) discovery.Store { return asHandle(shared) }

func asHandle(shared *discovery.Mem) *handle {
	ctx, end := context.WithCancel(context.Background())
	return &handle{Mem: shared, ctx: ctx, end: end}
}

func (h *handle) Put(ctx context.Context, key string, value []byte, ttl time.Duration) (discovery.Lease, error) {
	if h.ctx.Err() != nil {
		return nil, discovery.ErrClosed
	}
	lease, err := h.Mem.Put(ctx, key, value, ttl)
	if err == nil && ttl == 0 {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.kept = append(h.kept, lease)
	}
	return lease, err
}

func (h *handle) Watch(ctx context.Context, prefix string) iter.Seq2[discovery.Snapshot, error] {
	return func(yield func(discovery.Snapshot, error) bool) {
		both, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(h.ctx, cancel)()
		for snap, err := range h.Mem.Watch(both, prefix) {
			if err != nil && ctx.Err() != nil {
				err = ctx.Err()
			} else if err != nil && h.ctx.Err() != nil {
				err = discovery.ErrClosed
			}
			if !yield(snap, err) {
				return
			}
		}
	}
}

func (h *handle) Close() error {
	h.end()
	h.kill()
	return nil
}

// kill is what a backend does a lease time after its owner's death.
func (h *handle) kill() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, lease := range h.kept {
		_ = lease.Release(context.Background())
	}
	h.kept = nil
}

// A brokenStore breaks the contract in one way.
type brokenStore struct {
	name     string
	wrap     func(*discovery.Mem) discovery.Store
	caughtBy []string // the checks that must fail, at least
}

func brokenStores() []brokenStore {
	return []brokenStore{
		{"sets unsorted", sets(unsorted), []string{"PutShows"}},
		{"only what is new", sets(onlyNew), []string{"PutShows", "ReleaseRemoves"}},
		{"no empty first set", sets(noEmpty), []string{"FirstSetAtOnce"}},
		{"prefix without its slash", sets(noSlash), []string{"PrefixEndsAtSlash"}},
		{"sets edited in place", sets(editsInPlace), []string{"SetsDoNotChange"}},
		{"values cut at NUL", sets(cutsAtNUL), []string{"EveryByteOfValue"}},
		{"keys unescaped", sets(unescapes), []string{"OddKeys"}},
		{"the first put stands", puts(firstStands), []string{"PutReplaces"}},
		{"value not copied", valueNotCopied, []string{"PutCopiesValue"}},
		{"ttl ignored", puts(noTTL), []string{"TTLEnds", "PutChangesLifetime", "CloseLeavesTTL"}},
		{"ttl too short", puts(halfTTL), []string{"TTLEnds"}},
		{"ttl for all", puts(allTTL), []string{"KeptOutlivesLeaseTime"}},
		{"bad records taken", puts(anyRecord), []string{"BadRecordsRefused"}},
		{"release forgotten", puts(noRelease), []string{"ReleaseRemoves", "ConcurrentUse"}},
		{"any lease releases", puts(anyLease), []string{"EarlierLeaseReleasesNothing", "EarlierLeaseOfAnotherStore"}},
		{"backlog", backlog, []string{"SlowReaderGetsLatest"}},
		{"one watch at a time", oneWatch, []string{"WatchesAreIndependent"}},
		{"break held up", breakHeldUp, []string{"WatchEndsWithBreak"}},
		{"context forgotten", contextForgotten, []string{"WatchEndsWithContext"}},
		{"any prefix", anyPrefix, []string{"BadPrefixesRefused"}},
		{"never killed", neverKilled, []string{"KilledOwnersRecordsGo"}},
		{"kept after close", keptAfterClose, []string{"CloseReleases"}},
		{"close takes all", closeTakesAll, []string{"CloseLeavesTTL"}},
		{"watches end quietly", endsQuietly, []string{"CloseEndsWatches", "WatchEndsWithContext"}},
		{"open after close", openAfterClose, []string{"ClosedRefuses", "CloseEndsWatches"}},
		{"goroutine left", goroutineLeft, []string{"CloseLeavesNoGoroutine"}},
	}
}
