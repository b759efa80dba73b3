package file

import (
	"errors"
	"io/fs"
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
		Break:     func(tb testing.TB, s discovery.Store) { tb.Helper(); block(tb, s.(*Store)) },
		Heal:      func(tb testing.TB, s discovery.Store) { tb.Helper(); unblock(tb, s.(*Store)) },
		LeaseTime: quick().dead,
		TTL:       100 * time.Millisecond,
	}
}

// block puts a file in the place of the directory of instances, which can then be neither
// read nor written.
func block(tb testing.TB, s *Store) {
	tb.Helper()
	bucket := s.dir.join(bucketName)
	if err := os.Rename(bucket, bucket+".away"); err != nil {
		tb.Fatal(err)
	}
	// Unless an owner has made the directory again just now.
	for {
		f, err := os.OpenFile(bucket, os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			shut(f)
			return
		}
		if err := os.RemoveAll(bucket); err != nil {
			tb.Fatal(err)
		}
	}
}

func unblock(tb testing.TB, s *Store) {
	tb.Helper()
	bucket := s.dir.join(bucketName)
	if err := os.Remove(bucket); err != nil {
		tb.Fatal(err)
	}
	// If an owner is quicker, it has put its records again.
	if err := os.Rename(bucket+".away", bucket); err != nil && !errors.Is(err, fs.ErrExist) {
		tb.Fatal(err)
	}
}
