package file

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/storetest"
)

// quick returns a shorter timing.
func quick() timing {
	return timing{
		dead:  800 * time.Millisecond,
		touch: 100 * time.Millisecond,
		scan:  50 * time.Millisecond,
		stray: 10 * time.Second,
		sweep: 200 * time.Millisecond,
	}
}

func TestConformance(t *testing.T) {
	storetest.Run(t, backend(func(*Store) {}))
}

// TestConformanceUnnotified runs the suite without notices, with scans alone.
func TestConformanceUnnotified(t *testing.T) {
	b := backend(func(s *Store) {
		if n, err := s.hear(); err == nil {
			shut(n) // so that add fails
		}
	})
	// Ages don't depend on notices, and take long to test.
	b.Kill, b.LeaseTime = nil, quick().scan
	storetest.Run(t, b)
}

func backend(prepare func(*Store)) storetest.Backend {
	return storetest.Backend{
		Open: func(tb testing.TB) discovery.Store {
			tb.Helper()
			s := open(tb, tb.TempDir())
			prepare(s)
			return s
		},
		Join: func(tb testing.TB, s discovery.Store) discovery.Store {
			tb.Helper()
			joined := open(tb, s.(*Store).dir.path)
			prepare(joined)
			return joined
		},
		Kill: func(_ testing.TB, s discovery.Store) {
			killed := s.(*Store)
			killed.closing.Do(func() { killed.closeErr = killed.close(false) })
		},
		Overwrite: func(tb testing.TB, s discovery.Store, key string, value []byte) {
			tb.Helper()
			bucket, rest := bucketOf(key)
			path := filepath.Join(s.(*Store).dir.join(bucket), fileName(rest))
			if err := os.WriteFile(path, value, 0o600); err != nil { // as an editor or cp does: in place
				tb.Fatal(err)
			}
		},
		LeaseTime: quick().dead,
		TTL:       100 * time.Millisecond,
	}
}
