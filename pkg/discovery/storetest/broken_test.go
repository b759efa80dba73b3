package storetest

import (
	"bytes"
	"context"
	"errors"
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

	mu      sync.Mutex // guards what follows
	kept    map[string]*keptRecord
	outage  bool
	changed chan struct{} // closed, and made anew, when outage changes
}

// errOutage is the reason for being stale.
var errOutage = errors.New("no answer")

// setOutage cuts the handle off from the shared records, or heals that.
func (h *handle) setOutage(on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.outage = on
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *handle) isOut() (bool, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.outage, h.changed
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
	h := &handle{Mem: shared, ctx: ctx, end: end, renews: true, kept: make(map[string]*keptRecord), changed: make(chan struct{})}
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
			if h.renews && !h.outage && (owner.Same(k.value, found) || owner.Damaged(k.value, found)) {
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
	if out, _ := h.isOut(); out {
		return nil, errOutage
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
		if out, _ := h.isOut(); out {
			yield(discovery.Snapshot{}, errOutage)
			return
		}
		var last discovery.Snapshot
		for {
			out, changed := h.isOut()
			if out {
				last.Stale = errOutage
				if !yield(last, nil) {
					return
				}
				select {
				case <-changed:
				case <-ctx.Done():
				case <-h.ctx.Done():
				}
			}
			ended, err := h.watchUntil(ctx, changed, prefix, func(snap discovery.Snapshot) bool {
				last = snap
				return yield(snap, nil)
			})
			if err != nil {
				yield(discovery.Snapshot{}, err)
			}
			if ended {
				return
			}
		}
	}
}

// watchUntil yields sets until an outage begins or ends, or returns true: the watch has
// ended, with err unless the reader wants no more.
func (h *handle) watchUntil(ctx context.Context, changed <-chan struct{}, prefix string, yield func(discovery.Snapshot) bool) (ended bool, err error) {
	both, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(h.ctx, cancel)()
	go func() {
		select {
		case <-changed:
			cancel()
		case <-both.Done():
		}
	}()
	for snap, err := range h.Mem.Watch(both, prefix) {
		switch {
		case ctx.Err() != nil:
			return true, ctx.Err()
		case h.ctx.Err() != nil:
			return true, discovery.ErrClosed
		case both.Err() != nil:
			return false, nil
		case err != nil:
			return true, err
		case !yield(snap):
			return true, nil
		}
	}
	return true, nil
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
		{"expiry of nothing", expiryOfNothing, []string{"ExpiryIsTold"}},
		{"expiry of what is kept", expiryOfKept, []string{"ExpiryIsTold"}},
		{"outage unnoticed", outages(unnoticed), []string{"OutageMakesStale"}},
		{"stale and empty", outages(emptied), []string{"OutageMakesStale"}},
		{"stale for good", outages(staleForGood), []string{"OutageMakesStale", "KeptOutlivesOutage"}},
		{"outage ends watches", outages(endsWithOutage), []string{"OutageMakesStale", "KeptOutlivesOutage"}},
		{"puts into an outage", putsIntoOutage, []string{"OutageMakesStale"}},
		{"old sets are news", watchesOldSets, []string{"OutageMakesStale"}},
		{"lost in an outage", lostInOutage, []string{"KeptOutlivesOutage"}},
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
		{"close waits for readers", waitsForReaders, []string{"CloseWaitsForNoReader", "CloseEndsWatches"}},
		{"open after close", openAfterClose, []string{"ClosedRefuses", "CloseEndsWatches"}},
		{"goroutine left", goroutineLeft, []string{"CloseLeavesNoGoroutine"}},
	}
}
