package discovery

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"hash/maphash"
	"iter"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// A Registry registers and lists instances in a [Store], and down reports about them.
// It is safe for concurrent use.
type Registry struct {
	store Store
	log   *slog.Logger
	odd   oddities
}

// NewRegistry returns a Registry over store, which the caller closes. A nil log
// discards.
func NewRegistry(store Store, log *slog.Logger) *Registry {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Registry{store: store, log: log}
}

// Instances is the complete set of instances of an endpoint at one moment. Readers may
// share it, and must not change it.
type Instances struct {
	List []Instance // sorted by id
	// Stale is nil if the set is current. Otherwise List is the last known set, and
	// Stale is the reason why the store can't be read now.
	Stale error
}

// Register registers i until the lease is released or the store is closed, and returns
// the instance as it stands in the store. It returns once other readers of the store can
// see it. ctx bounds the call, not the registration.
//
// An instance without an id gets one of [NewInstanceID], so that no two servers become one.
// An instance without an incarnation gets a random one, so that reports about an earlier
// server with its id don't concern it. It is an error if an NDJSON address names no host
// that a client could connect to, as [::]:4000 or :4000 do.
func (r *Registry) Register(ctx context.Context, i Instance) (Instance, Lease, error) {
	if err := checkReachable(i); err != nil {
		return Instance{}, nil, fmt.Errorf("registering instance %q of %s: %w", i.Name, i.Endpoint, err)
	}
	if i.ID == 0 {
		i.ID = NewInstanceID()
	}
	if i.Incarnation == "" {
		i.Incarnation = NewInstanceID().String()
	}
	key, value, err := EncodeInstance(i)
	if err != nil {
		return Instance{}, nil, err
	}
	lease, err := r.store.Put(ctx, key, value, 0)
	if err != nil {
		return Instance{}, nil, fmt.Errorf("registering instance %s of %s: %w", i.ID, i.Endpoint, err)
	}
	log := r.log.With("endpoint", i.Endpoint.String(), "id", i.ID.String(), "name", i.Name)
	log.Debug("registered instance", "transport", i.Transport, "address", i.Address)
	return i, registration{lease, log}, nil
}

// checkReachable says what is wrong with an address that clients are to connect to.
func checkReachable(i Instance) error {
	if i.Transport != NDJSON || i.Address == "" {
		return nil // the record's own check
	}
	host, _, err := net.SplitHostPort(i.Address)
	if err != nil {
		return fmt.Errorf("its address is not HOST:PORT: %w", err)
	}
	ip, _, _ := strings.Cut(host, "%") // an IPv6 zone
	if addr, err := netip.ParseAddr(ip); host == "" || err == nil && addr.IsUnspecified() {
		return fmt.Errorf("its address %q is every address of this machine, and none that a client can connect to", i.Address)
	}
	return nil
}

// A registration is a [Lease] that logs its release.
type registration struct {
	Lease
	log *slog.Logger
}

func (r registration) Release(ctx context.Context) error {
	if err := r.Lease.Release(ctx); err != nil {
		return fmt.Errorf("releasing an instance: %w", err)
	}
	r.log.Debug("released instance")
	return nil
}

// Watch yields the instances of e. Each pair is the complete set, never a delta. The
// first comes at once, even if it is empty. A slow reader gets the latest set, not
// every one in between. Records that do not parse are left out, with one warning each
// in the log.
//
// An error before the first set ends the watch. After the first set the watch recovers
// by itself: while the store can't be read, it yields the last known set with the
// reason in [Instances.Stale]. It ends with a pair that has ctx's error or
// [ErrClosed].
func (r *Registry) Watch(ctx context.Context, e Endpoint) iter.Seq2[Instances, error] {
	return func(yield func(Instances, error) bool) {
		if err := e.check(); err != nil {
			yield(Instances{}, err)
			return
		}
		r.watch(ctx, e.String(), e.prefix(), yield)
	}
}

// WatchNamespace yields the instances of all endpoints of a namespace, sorted by endpoint
// and then by id, under the same contract as [Registry.Watch].
func (r *Registry) WatchNamespace(ctx context.Context, namespace string) iter.Seq2[Instances, error] {
	return func(yield func(Instances, error) bool) {
		if err := checkPart(namespace); err != nil {
			yield(Instances{}, fmt.Errorf("namespace %q: %w", namespace, err))
			return
		}
		r.watch(ctx, namespace, instancesPrefix+namespace+"/", func(set Instances, err error) bool {
			slices.SortStableFunc(set.List, func(a, b Instance) int {
				return strings.Compare(a.Endpoint.String(), b.Endpoint.String())
			})
			return yield(set, err)
		})
	}
}

// watch watches a prefix, which what describes.
func (r *Registry) watch(ctx context.Context, what, prefix string, yield func(Instances, error) bool) {
	var known []*decoded
	for snap, err := range r.store.Watch(ctx, prefix) {
		if err != nil {
			yield(Instances{}, fmt.Errorf("watching %s: %w", what, err))
			return
		}
		known = r.decode(snap.Records, known)
		set := Instances{List: list(known), Stale: snap.Stale}
		r.log.Debug("snapshot of instances", "endpoint", what,
			"instances", len(set.List), "records", len(snap.Records), "stale", snap.Stale)
		if !yield(set, nil) {
			return
		}
	}
}

// ListNamespace returns the instances of a namespace now: the first set of
// [Registry.WatchNamespace].
func (r *Registry) ListNamespace(ctx context.Context, namespace string) (Instances, error) {
	for set, err := range r.WatchNamespace(ctx, namespace) {
		return set, err
	}
	return Instances{}, fmt.Errorf("watching %s: the store yielded nothing", namespace)
}

// List returns the instances of e now: the first set of [Registry.Watch].
func (r *Registry) List(ctx context.Context, e Endpoint) (Instances, error) {
	for set, err := range r.Watch(ctx, e) {
		return set, err
	}
	return Instances{}, fmt.Errorf("watching %s: the store yielded nothing", e)
}

// A decoded is a record and its instance, or the error of decoding it.
type decoded struct {
	record   Record
	instance Instance
	err      error
}

// decode decodes records. It does not parse those that are in known again: as a rule,
// one of ten thousand records has changed. Both are sorted by key.
func (r *Registry) decode(records []Record, known []*decoded) []*decoded {
	out := make([]*decoded, 0, len(records))
	for _, record := range records {
		for len(known) > 0 && known[0].record.Key < record.Key {
			known = known[1:]
		}
		if len(known) > 0 && known[0].record.Key == record.Key && bytes.Equal(known[0].record.Value, record.Value) {
			out = append(out, known[0])
			continue
		}
		d := &decoded{record: record}
		d.instance, d.err = DecodeInstance(record.Key, record.Value)
		if d.err != nil && r.odd.add(record) {
			r.log.Warn("skipping a record", "err", d.err)
		}
		out = append(out, d)
	}
	return out
}

// maxOddities bounds the records that a [Registry] warns about, and so what it
// remembers of them. The first thousand show what is wrong with a store.
const maxOddities = 1000

// oddities are the records that a registry has warned about. The zero value is ready
// for use, also by several goroutines.
type oddities struct {
	mu     sync.Mutex // guards what follows
	seed   maphash.Seed
	values map[string]uint64 // by key, the hash of the value
}

// add adds r and reports whether it is new, so that a warning is due.
func (o *oddities) add(r Record) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.values == nil {
		o.seed = maphash.MakeSeed()
		o.values = make(map[string]uint64)
	}
	hash := maphash.Bytes(o.seed, r.Value)
	old, known := o.values[r.Key]
	if known && old == hash || !known && len(o.values) >= maxOddities {
		return false
	}
	o.values[r.Key] = hash
	return true
}

// list returns the instances sorted by id. The records are sorted by key, which sorts
// the ids that have the same number of digits. So it places each instance after those
// with fewer digits.
func list(all []*decoded) []Instance {
	const maxDigits = 16
	var place [maxDigits + 2]int // by number of digits, where the next one goes
	for _, d := range all {
		if d.err == nil {
			place[d.instance.ID.digits()+1]++
		}
	}
	for n := range maxDigits + 1 {
		place[n+1] += place[n]
	}
	out := make([]Instance, place[maxDigits+1])
	for _, d := range all {
		if d.err == nil {
			n := d.instance.ID.digits()
			out[place[n]] = d.instance
			place[n]++
		}
	}
	return out
}

// StaticInstances is a set of instances that never changes, in place of a
// [Registry]. It is safe for concurrent use; [Static] makes it.
type StaticInstances struct {
	set Instances
	err error
}

// Static returns the set of instances, for programs that know their servers, and
// for tests. Instances that share an id, or lack an address or a transport, are an
// error of [StaticInstances.Watch].
func Static(instances ...Instance) *StaticInstances {
	list := slices.SortedFunc(slices.Values(instances), func(a, b Instance) int {
		return cmp.Compare(a.ID, b.ID)
	})
	return &StaticInstances{Instances{List: list}, checkStatic(list)}
}

// Watch yields the set once, whatever the endpoint is, then waits until ctx ends
// and yields ctx's error. If the instances are not valid, it yields that error
// alone.
func (s *StaticInstances) Watch(ctx context.Context, _ Endpoint) iter.Seq2[Instances, error] {
	return func(yield func(Instances, error) bool) {
		if s.err != nil {
			yield(Instances{}, s.err)
			return
		}
		if !yield(s.set, nil) {
			return
		}
		<-ctx.Done()
		yield(Instances{}, ctx.Err())
	}
}

// checkStatic says what is wrong with the instances of [Static], sorted by id.
func checkStatic(instances []Instance) error {
	for n, i := range instances {
		switch {
		case n > 0 && i.ID == instances[n-1].ID:
			return fmt.Errorf("static instances: %q and %q have the same ID, %s", instances[n-1].Name, i.Name, i.ID)
		case i.Transport == "":
			return fmt.Errorf("static instances: %q (%s) has no Transport; for servers of package stream it is discovery.NDJSON", i.Name, i.ID)
		case i.Address == "":
			return fmt.Errorf("static instances: %q (%s) has no Address", i.Name, i.ID)
		}
	}
	return nil
}
