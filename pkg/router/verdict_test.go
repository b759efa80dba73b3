package router

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/request-migration/migrate/pkg/stream"
)

// The failure model is the one in the documentation.
func TestJudge(t *testing.T) {
	reported := verdict{report: true, share: true, retry: true, counts: true}
	paused := verdict{retry: true, paused: true}
	refused := verdict{retry: true, refusal: true}
	kind := func(k stream.Kind) *stream.Break { return &stream.Break{Kind: k, Reason: "as told"} }
	for name, tt := range map[string]struct {
		err  error
		want verdict
	}{
		"unreachable":       {kind(stream.Unreachable), reported},
		"unresponsive":      {kind(stream.Unresponsive), reported},
		"truncated":         {kind(stream.Truncated), reported},
		"reset":             {kind(stream.Reset), reported},
		"stalled":           {kind(stream.Stalled), reported},
		"failed":            {kind(stream.Failed), reported},
		"protocol":          {kind(stream.Protocol), reported},
		"own bound":         {&stream.Break{Kind: stream.Stalled, NoShare: true}, verdict{report: true, retry: true, counts: true}},
		"sound server":      {&stream.Break{Kind: stream.Failed, NoReport: true}, verdict{retry: true, counts: true}},
		"after a pause":     {&stream.Break{Kind: stream.Stalled, Paused: true, NoReport: true}, paused},
		"pause, no word":    {&stream.Break{Kind: stream.Reset, Paused: true}, paused},
		"refused in pause":  {&stream.Break{Kind: stream.Overloaded, Paused: true}, refused},
		"its own, in pause": {&stream.Break{Kind: stream.Application, Paused: true}, verdict{}},
		"this machine":      {kind(stream.Local), verdict{retry: true, counts: true}},
		"misdirected":       {kind(stream.Misdirected), verdict{report: true, share: true, retry: true, refusal: true}},
		"overloaded":        {kind(stream.Overloaded), refused},
		"draining":          {kind(stream.Draining), refused},
		"unresumable":       {kind(stream.Unresumable), refused},
		"application":       {kind(stream.Application), verdict{}},
		"a newer kind":      {kind("newer"), verdict{}},
		"cancelled":         {context.Canceled, verdict{}},
		"deadline":          {context.DeadlineExceeded, verdict{}},
		"closed":            {stream.ErrClosed, verdict{}},
		"left":              {ErrLeft, verdict{}},
		"not sent":          {errors.New("sending a request: too long"), verdict{}},
	} {
		if got := judge(fmt.Errorf("somewhere: %w", tt.err)); got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}
