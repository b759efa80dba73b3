package discovery_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/storetest"
)

func TestMem(t *testing.T) {
	storetest.Run(t, storetest.Backend{
		Open:      func(testing.TB) discovery.Store { return new(discovery.Mem) },
		LeaseTime: 20 * time.Millisecond,
		TTL:       20 * time.Millisecond,
	})
}

// TestMemTTLIsExact checks the ttl to the nanosecond, by fake time.
func TestMemTTLIsExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := new(discovery.Mem)
		began := time.Now()
		for key, ttl := range map[string]time.Duration{"v1/down/a": 5 * time.Second, "v1/down/b": 7 * time.Second, "v1/down/c": 0} {
			if _, err := m.Put(t.Context(), key, []byte("x"), ttl); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		var after []time.Duration
		for snap, err := range m.Watch(ctx, "v1/down/") {
			if err != nil {
				break
			}
			if want := 3 - len(after); len(snap.Records) != want {
				t.Errorf("set %d has %d records, want %d", len(after), len(snap.Records), want)
			}
			after = append(after, time.Since(began))
		}
		want := []time.Duration{0, 5 * time.Second, 7 * time.Second}
		if len(after) != len(want) || after[0] != want[0] || after[1] != want[1] || after[2] != want[2] {
			t.Errorf("sets came after %v, want %v", after, want)
		}
	})
}

// TestMemTTLWithoutWatch checks that a ttl passes although nobody watches.
func TestMemTTLWithoutWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := new(discovery.Mem)
		if _, err := m.Put(t.Context(), "v1/down/a", []byte("x"), 5*time.Second); err != nil {
			t.Fatal(err)
		}
		for _, at := range []struct {
			wait time.Duration
			want int
		}{{5*time.Second - 1, 1}, {1, 0}} {
			time.Sleep(at.wait)
			for snap, err := range m.Watch(t.Context(), "v1/down/") {
				if err != nil || len(snap.Records) != at.want {
					t.Errorf("%v later there are %d records, %v, want %d", at.wait, len(snap.Records), err, at.want)
				}
				break
			}
		}
	})
}

// The zero Mem needs nothing before any of its methods.
func TestZeroMem(t *testing.T) {
	for name, use := range map[string]func(m *discovery.Mem) error{
		"watch": func(m *discovery.Mem) error {
			for snap, err := range m.Watch(t.Context(), "v1/down/") {
				if len(snap.Records) != 0 {
					t.Errorf("it has %v", snap.Records)
				}
				return err
			}
			return errors.New("nothing was yielded")
		},
		"expiry": func(m *discovery.Mem) error {
			d, err := m.Expiry(t.Context(), "v1/down/a")
			if d != 0 {
				t.Errorf("what is not there stands for %v", d)
			}
			return err
		},
		"put": func(m *discovery.Mem) error {
			lease, err := m.Put(t.Context(), "v1/down/a", []byte("x"), 0)
			if err != nil {
				return err
			}
			return lease.Release(t.Context())
		},
		"close": func(*discovery.Mem) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			var m discovery.Mem
			if err := use(&m); err != nil {
				t.Error(err)
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
			if _, err := m.Put(t.Context(), "v1/down/a", []byte("x"), 0); !errors.Is(err, discovery.ErrClosed) {
				t.Errorf("Put after Close: %v", err)
			}
		})
	}
}
