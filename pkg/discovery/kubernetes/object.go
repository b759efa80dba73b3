package kubernetes

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// MaxValue is the size in bytes of the largest value that the store takes: 128 KiB. In
// base64 it fits into an object's annotations, which hold 256 KiB together. Records of
// instances have some hundred bytes.
const MaxValue = 128 << 10

// An object is what this package knows of a Lease: one kept record, or any number of
// records with a ttl.
type object struct {
	name    string
	uid     types.UID
	version string
	holder  string // the store that renews it; "" for nobody
	kept    *keptValue
	briefs  map[string]briefValue // by key
}

// A keptValue is the record of an object that its owner renews.
type keptValue struct {
	key      string
	value    []byte
	renewed  time.Time     // by the API server's clock
	lifetime time.Duration // 0: it never expires
}

// A briefValue is a record with a ttl. Nobody renews it. It is one annotation, in JSON.
type briefValue struct {
	Key    string    `json:"key"`
	Text   string    `json:"value,omitempty"`        // the value, if it is UTF-8
	Base64 []byte    `json:"value_base64,omitempty"` // or else here
	Until  time.Time `json:"until"`                  // by the API server's clock
	TTL    int64     `json:"ttl_ms"`
	Put    string    `json:"put"` // one Put, to tell a record from the next under its key

	annotation, raw string // as found
}

func (b briefValue) value() []byte {
	if b.Text != "" {
		return []byte(b.Text)
	}
	return b.Base64
}

func (b briefValue) ttl() time.Duration { return time.Duration(b.TTL) * time.Millisecond }

// keptLease returns the Lease of a kept record.
func (s *Store) keptLease(key string, value []byte) *coordinationv1.Lease {
	annotations := map[string]string{keyAnnotation: key}
	if utf8.Valid(value) {
		annotations[valueAnnotation] = string(value)
	} else {
		annotations[base64Annotation] = base64.StdEncoding.EncodeToString(value)
	}
	seconds := int32(s.cfg.LeaseTTL / time.Second)
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Name: keptName(key), Namespace: s.namespace, Labels: labels(key), Annotations: annotations,
		},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity:       &s.identity,
			LeaseDurationSeconds: &seconds,
			RenewTime:            &metav1.MicroTime{Time: s.clock.now()},
		},
	}
	if s.cfg.PodName != "" {
		lease.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: "v1", Kind: "Pod", Name: s.cfg.PodName, UID: types.UID(s.cfg.PodUID),
		}}
	}
	return lease
}

// briefLease returns a new Lease with one record with a ttl.
func (s *Store) briefLease(b briefValue) *coordinationv1.Lease {
	return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
		Name: briefName(b.Key), Namespace: s.namespace, Labels: labels(b.Key),
		Annotations: map[string]string{b.annotation: b.raw},
	}}
}

// newBrief returns the record of one Put.
func (s *Store) newBrief(key string, value []byte, ttl time.Duration) (briefValue, error) {
	_, latest := s.clock.bounds()
	b := briefValue{Key: key, Until: latest.Add(ttl), TTL: max(ttl.Milliseconds(), 1), Put: randomID()}
	if utf8.Valid(value) {
		b.Text = string(value)
	} else {
		b.Base64 = value
	}
	raw, err := json.Marshal(b)
	b.annotation, b.raw = briefAnnotation+hash(key), string(raw)
	return b, err
}

// decode reads a Lease. It leaves out what is not where a store would look for it: a copy
// under another name, say.
func decode(lease *coordinationv1.Lease) object {
	o := object{name: lease.Name, uid: lease.UID, version: lease.ResourceVersion}
	if lease.Spec.HolderIdentity != nil {
		o.holder = *lease.Spec.HolderIdentity
	}
	if key, ok := lease.Annotations[keyAnnotation]; ok && keptName(key) == lease.Name {
		o.kept = &keptValue{key: key, value: []byte(lease.Annotations[valueAnnotation])}
		if text, ok := lease.Annotations[base64Annotation]; ok {
			o.kept.value, _ = base64.StdEncoding.DecodeString(text) // what is damaged is cut
		}
		if lease.Spec.RenewTime != nil {
			o.kept.renewed = lease.Spec.RenewTime.Time
		}
		if seconds := lease.Spec.LeaseDurationSeconds; seconds != nil {
			o.kept.lifetime = time.Duration(*seconds) * time.Second
		}
		return o
	}
	for _, name := range slices.Sorted(maps.Keys(lease.Annotations)) {
		if !strings.HasPrefix(name, briefAnnotation) {
			continue
		}
		b := briefValue{annotation: name, raw: lease.Annotations[name]}
		if json.Unmarshal([]byte(b.raw), &b) != nil || name != briefAnnotation+hash(b.Key) ||
			briefName(b.Key) != lease.Name || b.TTL <= 0 || b.TTL > int64(maxTTL/time.Millisecond) {
			continue // somebody else's
		}
		if o.briefs == nil {
			o.briefs = make(map[string]briefValue)
		}
		o.briefs[b.Key] = b
	}
	return o
}

// maxTTL bounds the ttl of a record, so that its milliseconds can't overflow.
const maxTTL = 100 * 365 * 24 * time.Hour
