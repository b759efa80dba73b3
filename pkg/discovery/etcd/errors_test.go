package etcd

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A request is worth another try if etcd or gRPC notices the deadline before the context.
func TestDeadlineNoticedElsewhereIsTransient(t *testing.T) {
	for code, want := range map[codes.Code]bool{
		codes.DeadlineExceeded: true, codes.Unavailable: true, codes.PermissionDenied: false,
	} {
		if err := explain(t.Context(), status.Error(code, "as told")); transient(err) != want {
			t.Errorf("%v: transient is %v, want %v", err, !want, want)
		}
	}
}
