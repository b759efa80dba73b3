package file

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkScan measures a scan of 10,000 records: exact, as when a watch begins, and
// by notice, as every 2 s from then on.
func BenchmarkScan(b *testing.B) {
	for _, exact := range []bool{true, false} {
		b.Run(fmt.Sprintf("exact=%v", exact), func(b *testing.B) {
			s := openWith(b, Config{Dir: b.TempDir()})
			value := []byte(strings.Repeat("x", 200))
			for i := range 10_000 {
				// With a ttl, so that nobody renews them meanwhile.
				if _, err := s.Put(b.Context(), fmt.Sprintf("%s%x", ep, i), value, 1<<40); err != nil {
					b.Fatal(err)
				}
			}
			bucket, err := s.watched(bucketName)
			if err != nil {
				b.Fatal(err)
			}
			defer bucket.leave()
			b.ReportAllocs()
			for b.Loop() {
				if err := bucket.scan(exact); err != nil {
					b.Fatal(err)
				}
			}
			if all, _ := bucket.set.Get(); len(all.Records) != 10_000 {
				b.Errorf("there are %d records", len(all.Records))
			}
		})
	}
}
