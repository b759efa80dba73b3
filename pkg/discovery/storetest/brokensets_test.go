package storetest

import (
	"bytes"
	"context"
	"iter"
	"slices"
	"strings"

	"github.com/request-migration/migrate/pkg/discovery"
)

// An editFunc returns a wrong set in place of the one under prefix, or false to leave
// the set out. all has the records of all prefixes.
type editFunc func(prefix string, all, snap discovery.Snapshot) (spoilt discovery.Snapshot, ok bool)

// sets breaks the sets that watches yield. It calls edit for each watch.
func sets(edit func() editFunc) func(*discovery.Mem) discovery.Store {
	return func(shared *discovery.Mem) discovery.Store { return &brokenSets{asHandle(shared), edit} }
}

type brokenSets struct {
	*handle
	edit func() editFunc
}

func (b *brokenSets) Watch(ctx context.Context, prefix string) iter.Seq2[discovery.Snapshot, error] {
	return func(yield func(discovery.Snapshot, error) bool) {
		if err := discovery.CheckPrefix(prefix); err != nil {
			yield(discovery.Snapshot{}, err)
			return
		}
		edit := b.edit()
		bucket := strings.Join(strings.SplitAfter(prefix, "/")[:2], "")
		for all, err := range b.handle.Watch(ctx, bucket) {
			if err != nil {
				yield(discovery.Snapshot{}, err)
				return
			}
			all.Records = slices.Clone(all.Records)
			snap, ok := edit(prefix, all, all.Under(prefix))
			if ok && !yield(snap, nil) {
				return
			}
		}
	}
}

func unsorted() editFunc {
	return func(_ string, _, snap discovery.Snapshot) (discovery.Snapshot, bool) {
		slices.Reverse(snap.Records)
		return snap, true
	}
}

func onlyNew() editFunc {
	seen := make(map[string]bool)
	return func(_ string, _, snap discovery.Snapshot) (discovery.Snapshot, bool) {
		snap.Records = slices.DeleteFunc(slices.Clone(snap.Records), func(r discovery.Record) bool { return seen[r.Key] })
		for _, r := range snap.Records {
			seen[r.Key] = true
		}
		return snap, true
	}
}

func noEmpty() editFunc {
	return func(_ string, _, snap discovery.Snapshot) (discovery.Snapshot, bool) {
		return snap, len(snap.Records) > 0
	}
}

func noSlash() editFunc {
	return func(prefix string, all, _ discovery.Snapshot) (discovery.Snapshot, bool) {
		return all.Under(strings.TrimSuffix(prefix, "/")), true
	}
}

func editsInPlace() editFunc {
	var buffer []discovery.Record
	return func(_ string, _, snap discovery.Snapshot) (discovery.Snapshot, bool) {
		buffer = append(buffer[:0], snap.Records...)
		return discovery.Snapshot{Records: buffer}, true
	}
}

func cutsAtNUL() editFunc {
	return func(_ string, _, snap discovery.Snapshot) (discovery.Snapshot, bool) {
		for i, r := range snap.Records {
			snap.Records[i].Value, _, _ = bytes.Cut(r.Value, []byte{0})
		}
		return snap, true
	}
}

func unescapes() editFunc {
	return func(_ string, _, snap discovery.Snapshot) (discovery.Snapshot, bool) {
		for i, r := range snap.Records {
			snap.Records[i].Key = strings.ReplaceAll(r.Key, "%2F", "/")
		}
		return snap, true
	}
}
