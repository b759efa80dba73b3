package router

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/request-migration/migrate/pkg/stream"
)

// The failure model, as the documentation has it.
func TestJudge(t *testing.T) {
	for _, tt := range []struct {
		err                   error
		report, retry, counts bool
	}{
		{stream.Unreachable, true, true, true},
		{stream.Unresponsive, true, true, true},
		{stream.Truncated, true, true, true},
		{stream.Reset, true, true, true},
		{stream.Stalled, true, true, true},
		{stream.Failed, true, true, true},
		{stream.Protocol, true, true, true},
		{stream.Overloaded, false, true, false},
		{stream.Draining, false, true, false},
		{stream.Application, false, false, false},
		{context.Canceled, false, false, false},
		{context.DeadlineExceeded, false, false, false},
		{stream.ErrClosed, false, false, false},
		{errLeft, false, false, false},
		{errors.New("sending a request: too long"), false, false, false},
		{stream.Kind("a newer one"), false, false, false},
	} {
		err := tt.err
		if kind, ok := err.(stream.Kind); ok { //nolint:errorlint // of the table above, not wrapped
			err = fmt.Errorf("somewhere: %w", &stream.Break{Kind: kind, Reason: "as told"})
		}
		if got, want := judge(err), (verdict{tt.report, tt.retry, tt.counts}); got != want {
			t.Errorf("%v: %+v, want %+v", tt.err, got, want)
		}
	}
}
