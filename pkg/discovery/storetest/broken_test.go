package storetest

import (
	"bytes"
	"context"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/internal/owner"
)

// A handle is one owner's view of a shared [discovery.Mem]. It is a sound store, which
// each broken one embeds and breaks in one way.
type handle struct {
	*discovery.Mem
	ctx  context.Context // ended by Close
	end  context.CancelFunc
	work sync.WaitGroup

	renews bool // false breaks it
	outage *outage

	mu   sync.Mutex // guards what follows
	kept map[string]*keptRecord
}

// A keptRecord is a record that its owner keeps, and its lease.
type keptRecord struct {
	h     *handle
	key   string
	value []byte
	lease discovery.Lease // the newest; guarded by h.mu
}

func newHandle(shared *discovery.Mem) discovery.Store { return asHandle(shared) }

// renewEvery is well below the suite's LeaseTime.
const renewEvery = 2 * time.Second

func asHandle(shared *discovery.Mem) *handle {
	// What a broken store leaves running ends by itself.
	ctx, end := context.WithTimeout(context.Background(), 12*time.Hour)
	h := &handle{Mem: shared, ctx: ctx, end: end, renews: true, outage: outageOf(shared), kept: make(map[string]*keptRecord)}
	h.work.Go(h.renew)
	return h
}

// renew puts records again that are gone, copied or damaged, as an owner must.
func (h *handle) renew() {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-tick.C:
		}
		h.mu.Lock()
		for key, k := range h.kept {
			found := h.find(key)
			if h.renews && (owner.Same(k.value, found) || owner.Damaged(k.value, found)) {
				k.lease, _ = h.Mem.Put(h.ctx, key, k.value, 0)
			}
		}
		h.mu.Unlock()
	}
}

// find returns the value under key, or nil if there is none.
func (h *handle) find(key string) []byte {
	for snap, err := range h.Mem.Watch(h.ctx, key[:strings.LastIndexByte(key, '/')+1]) {
		if err != nil {
			return nil
		}
		for _, r := range snap.Records {
			if r.Key == key {
				return r.Value
			}
		}
		break
	}
	return nil
}

func (h *handle) Put(ctx context.Context, key string, value []byte, ttl time.Duration) (discovery.Lease, error) {
	if h.ctx.Err() != nil {
		return nil, discovery.ErrClosed
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	lease, err := h.Mem.Put(ctx, key, value, ttl)
	if err != nil {
		return nil, err
	}
	delete(h.kept, key)
	if ttl > 0 {
		return lease, nil
	}
	k := &keptRecord{h: h, key: key, value: bytes.Clone(value), lease: lease}
	h.kept[key] = k
	return k, nil
}

// Release implements [discovery.Lease].
func (k *keptRecord) Release(ctx context.Context) error {
	k.h.mu.Lock()
	defer k.h.mu.Unlock()
	if k.h.kept[k.key] != k {
		return nil
	}
	delete(k.h.kept, k.key)
	if k.lease == nil {
		return nil
	}
	return k.lease.Release(ctx)
}

func (h *handle) Watch(ctx context.Context, prefix string) iter.Seq2[discovery.Snapshot, error] {
	return func(yield func(discovery.Snapshot, error) bool) {
		both, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(h.ctx, cancel)()
		for snap, err := range h.outage.over(both, func(ctx context.Context) iter.Seq2[discovery.Snapshot, error] { return h.Mem.Watch(ctx, prefix) }) {
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
	h.work.Wait()
	return nil
}

// kill does what a backend does a lease time after the owner's death.
func (h *handle) kill() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, k := range h.kept {
		if k.lease != nil {
			_ = k.lease.Release(context.Background())
		}
	}
	clear(h.kept)
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
		{"replaced for good", puts(replacedForGood), []string{"ReplacedOwnerReturns"}},
		{"replaced owner fights", puts(fights), []string{"ReplacedOwnerReturns"}},
		{"released, yet put again", puts(comesBack), []string{"ReplacedThenReleased"}},
		{"copies left alone", neverRenews, []string{"CopyIsTakenOver", "DamageIsMended"}},
		{"context of puts ignored", puts(putWithoutContext), []string{"PutHeedsContext"}},
		{"any lease releases", puts(anyLease), []string{"EarlierLeaseReleasesNothing", "EarlierLeaseOfAnotherStore"}},
		{"backlog", backlog, []string{"SlowReaderGetsLatest"}},
		{"one watch at a time", oneWatch, []string{"WatchesAreIndependent"}},
		{"break held up", breakHeldUp, []string{"WatchEndsWithBreak"}},
		{"idle taken for an outage", flaps, []string{"IdleWatchIsSilent"}},
		{"context forgotten", contextForgotten, []string{"WatchEndsWithContext"}},
		{"any prefix", anyPrefix, []string{"BadPrefixesRefused"}},
		{"never killed", neverKilled, []string{"KilledOwnersRecordsGo"}},
		{"kept after close", keptAfterClose, []string{"CloseReleases"}},
		{"close takes all", closeTakesAll, []string{"CloseLeavesTTL"}},
		{"watches end quietly", endsQuietly, []string{"CloseEndsWatches", "WatchEndsWithContext"}},
		{"open after close", openAfterClose, []string{"ClosedRefuses", "CloseEndsWatches"}},
		{"goroutine left", goroutineLeft, []string{"CloseLeavesNoGoroutine"}},
		{"close waits for readers", closeWaits, []string{"CloseEndsWatches"}},
		{"outages hidden", sets(hidesOutages), []string{"OutageIsStale"}},
		{"nothing known in an outage", sets(forgetsInOutages), []string{"OutageIsStale"}},
	}
}
