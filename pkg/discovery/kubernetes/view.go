package kubernetes

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/internal/remote"
	"github.com/request-migration/migrate/pkg/internal/signal"
)

// A view is the set of one watch. A follower changes it and a reader takes it, each at
// its own pace. The changes collect until the reader takes the set, and then cost one
// pass over it together.
type view struct {
	prefix  string
	clock   *clock
	dead    *deadList
	changed chan struct{} // has a token when there is a new set to take

	mu      sync.Mutex          // guards what follows
	objects map[string]*seen    // by name
	records []discovery.Record  // sorted; readers share it, so it never changes
	pending map[string]struct{} // keys whose values may differ from those in records
	version string              // the API server's; events up to it are in objects
	known   bool                // a first set has been listed
	sound   time.Time           // since when the API server can be read without a break
	stale   error
	told    remote.Causes // the reasons for being stale since the set was last current
}

// seen is what a view has seen of an object.
type seen struct {
	uid     types.UID
	version string
	kept    *live
	briefs  map[string]*live
}

// live is a record, and when it expires.
type live struct {
	id       string // of one write of it
	key      string
	value    []byte
	lifetime time.Duration // 0: it never expires
	renewed  time.Time     // when this process has seen it renewed
	dead     bool          // it has expired, and the object is still there
}

// due reports whether the record's lifetime is over. While the API server could not be
// read nobody could renew, so the time counts from when it could.
func (l *live) due(now, sound time.Time) bool {
	return !l.dead && l.lifetime > 0 && !now.Before(l.deadline(sound))
}

func (l *live) deadline(sound time.Time) time.Time {
	if sound.After(l.renewed) {
		return sound.Add(l.lifetime)
	}
	return l.renewed.Add(l.lifetime)
}

func newView(s *Store, prefix string) *view {
	return &view{
		prefix: prefix, clock: s.clock, dead: s.dead,
		changed: make(chan struct{}, 1),
		objects: make(map[string]*seen), pending: make(map[string]struct{}),
	}
}

// take returns the set as it is now.
func (v *view) take() discovery.Snapshot {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.merge()
	return discovery.Snapshot{Records: v.records, Stale: v.stale}
}

// merge makes new records with the pending changes. v.mu is held.
func (v *view) merge() {
	if len(v.pending) == 0 {
		return
	}
	records := make([]discovery.Record, 0, len(v.records)+len(v.pending))
	next := 0
	for _, key := range slices.Sorted(maps.Keys(v.pending)) {
		at, found := slices.BinarySearchFunc(v.records[next:], key, func(r discovery.Record, key string) int {
			return cmp.Compare(r.Key, key)
		})
		records = append(records, v.records[next:next+at]...)
		if next += at; found {
			next++
		}
		if value := v.value(key); value != nil {
			records = append(records, discovery.Record{Key: key, Value: value})
		}
	}
	v.records = append(records, v.records[next:]...)
	clear(v.pending)
}

// value returns the value of a key: that of a record with a ttl, as long as there is one,
// and nil if there is none. v.mu is held.
func (v *view) value(key string) []byte {
	if o := v.objects[briefName(key)]; o != nil && o.briefs[key] != nil {
		return o.briefs[key].value
	}
	if o := v.objects[keptName(key)]; o != nil && o.kept != nil && !o.kept.dead {
		return o.kept.value
	}
	return nil
}

// position returns the version from which events are wanted.
func (v *view) position() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.version
}

// reset replaces the set by one that was just listed. renewed says that nobody could renew
// until now, because the API server was away.
func (v *view) reset(l listing, renewed bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.merge()
	now := time.Now()
	if renewed || !v.known {
		v.sound = now
	}
	old := v.objects
	v.objects = make(map[string]*seen, len(l.objects))
	for _, o := range l.objects {
		v.objects[o.name] = v.see(o, old[o.name], now, true)
	}
	records := v.all()
	same := v.known && v.stale == nil && discovery.Snapshot{Records: records}.Equal(discovery.Snapshot{Records: v.records})
	v.version, v.told = l.version, nil
	if same {
		return // the reader has it
	}
	v.records, v.stale, v.known = records, nil, true
	v.wake()
}

// all returns the records of all objects, sorted. v.mu is held.
func (v *view) all() []discovery.Record {
	byKey := make(map[string][]byte, len(v.objects))
	for _, o := range v.objects {
		if k := o.kept; k != nil && !k.dead {
			if _, brief := byKey[k.key]; !brief {
				byKey[k.key] = k.value
			}
		}
		for key, b := range o.briefs {
			byKey[key] = b.value
		}
	}
	records := make([]discovery.Record, 0, len(byKey))
	for key, value := range byKey {
		records = append(records, discovery.Record{Key: key, Value: value})
	}
	slices.SortFunc(records, func(a, b discovery.Record) int { return strings.Compare(a.Key, b.Key) })
	return records
}

// apply takes in an event. It returns whether a record has changed, and when the first of
// the object's records is due then; the zero time if none is.
func (v *view) apply(kind string, o object) (changed bool, due time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.version = o.version
	if kind == "BOOKMARK" {
		return false, time.Time{}
	}
	last := v.objects[o.name]
	var next *seen
	if kind == "DELETED" {
		delete(v.objects, o.name)
	} else {
		next = v.see(o, last, time.Now(), false)
		v.objects[o.name] = next
	}
	before, after := last.values(), next.values()
	for key, value := range before {
		if !bytes.Equal(after[key], value) {
			v.pending[key], changed = struct{}{}, true
		}
	}
	for key := range after {
		if before[key] == nil {
			v.pending[key], changed = struct{}{}, true
		}
	}
	if changed {
		v.wake()
		due = next.due(v.sound)
	}
	return changed, due
}

// due returns when the first of an object's records is due; the zero time if none is.
func (o *seen) due(sound time.Time) (due time.Time) {
	if o == nil {
		return due
	}
	if k := o.kept; k != nil && !k.dead && k.lifetime > 0 {
		due = k.deadline(sound)
	}
	for _, b := range o.briefs {
		due = earlier(due, b.deadline(time.Time{}))
	}
	return due
}

// earlier returns the earlier of two times, of which the zero time is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// values returns the values of the live records, by key.
func (o *seen) values() map[string][]byte {
	if o == nil {
		return nil
	}
	if k := o.kept; k != nil {
		if k.dead {
			return nil
		}
		return map[string][]byte{k.key: k.value}
	}
	values := make(map[string][]byte, len(o.briefs))
	for key, b := range o.briefs {
		values[key] = b.value
	}
	return values
}

// see returns what is known of an object now that it has been seen at now, in a list or
// else in an event. v.mu is held.
func (v *view) see(o object, last *seen, now time.Time, listed bool) *seen {
	next := &seen{uid: o.uid, version: o.version}
	if last != nil && (last.uid != o.uid) {
		last = nil
	}
	if k := o.kept; k != nil && strings.HasPrefix(k.key, v.prefix) && len(k.value) > 0 {
		next.kept = &live{id: string(o.uid) + "/" + o.version, key: k.key, value: k.value, lifetime: k.lifetime, renewed: now}
		switch {
		case last != nil && last.kept != nil && last.version == o.version:
			next.kept = last.kept
		case v.dead.has(next.kept.id):
			next.kept.dead = true
		case last == nil && listed && k.lifetime > 0:
			// Only the API server's clock can tell how old it is.
			age := min(max(v.clock.now().Sub(k.renewed)-clockSlack, 0), k.lifetime)
			next.kept.renewed = now.Add(-age)
			next.kept.dead = age >= k.lifetime
		}
	}
	for key, b := range o.briefs {
		if !strings.HasPrefix(key, v.prefix) || v.dead.has(b.Put) {
			continue
		}
		l := &live{id: b.Put, key: key, value: b.value(), lifetime: b.ttl(), renewed: now}
		if last != nil && last.briefs[key] != nil && last.briefs[key].id == b.Put {
			l = last.briefs[key]
		} else if listed {
			earliest, _ := v.clock.bounds()
			left := b.Until.Sub(earliest)
			if left <= 0 {
				continue
			}
			l.lifetime = min(l.lifetime, left)
		}
		if next.briefs == nil {
			next.briefs = make(map[string]*live, len(o.briefs))
		}
		next.briefs[key] = l
	}
	return next
}

// expire removes the records with a ttl that has passed. It returns whether some kept
// record should have been renewed by now, and when the next record is due; the zero time
// if none is.
func (v *view) expire() (overdue bool, next time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := time.Now()
	changed := false
	for _, o := range v.objects {
		overdue = overdue || o.kept != nil && o.kept.due(now, v.sound)
		for key, b := range o.briefs {
			// Nobody renews it, whether the API server can be read or not.
			if b.due(now, time.Time{}) {
				v.dead.add(b.id)
				delete(o.briefs, key)
				v.pending[key], changed = struct{}{}, true
			}
		}
		next = earlier(next, o.due(v.sound))
	}
	if changed {
		v.wake()
	}
	return overdue, next
}

// bury takes those records to be dead that a list made just now has not shown renewed.
func (v *view) bury() {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := time.Now()
	for _, o := range v.objects {
		if k := o.kept; k != nil && k.due(now, v.sound) {
			k.dead = true
			v.dead.add(k.id)
			v.pending[k.key] = struct{}{}
			v.wake()
		}
	}
}

// pardon lets every lifetime count from now: this process, or the API server, stood still.
func (v *view) pardon() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.sound = time.Now()
}

// fail marks the set stale. Of each kind of reason only the first counts, because the
// next ones are the same outage.
func (v *view) fail(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.told.Add(kindOf(err)) {
		v.stale = err
		v.wake()
	}
}

// wake tells the reader that there is a new set to take. v.mu is held.
func (v *view) wake() { signal.Send(v.changed) }

// maxDead bounds a [deadList], and rememberDead says how long a write is remembered. It is
// longer than anybody takes to sweep it.
const (
	maxDead      = 20000
	rememberDead = 10 * time.Minute
)

// A deadList has the writes that this process has seen expire, so that a watch which
// begins then does not take them for new. It is safe for concurrent use.
type deadList struct {
	mu  sync.Mutex
	ids map[string]time.Time
}

func newDeadList() *deadList { return &deadList{ids: make(map[string]time.Time)} }

func (d *deadList) add(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.ids) >= maxDead {
		maps.DeleteFunc(d.ids, func(_ string, at time.Time) bool { return time.Since(at) > rememberDead })
	}
	if len(d.ids) < maxDead {
		d.ids[id] = time.Now()
	}
}

func (d *deadList) has(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, dead := d.ids[id]
	return dead
}
