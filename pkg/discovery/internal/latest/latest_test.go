package latest_test

import (
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/discovery/internal/latest"
)

func TestPause(t *testing.T) {
	for _, tt := range []struct{ work, want time.Duration }{
		{0, 5 * time.Millisecond},
		{time.Millisecond, 9 * time.Millisecond},
		{10 * time.Millisecond, 90 * time.Millisecond},
		{time.Second, 2 * time.Second},
	} {
		if got := latest.Pause(tt.work, 2*time.Second); got != tt.want {
			t.Errorf("the pause after work for %v is %v, want %v", tt.work, got, tt.want)
		}
	}
}
