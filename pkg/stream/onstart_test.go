package stream_test

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/request-migration/migrate/pkg/stream"
)

// The Started hook is called once when the server has taken the request, before
// the items.
func TestStartedHook(t *testing.T) {
	for name, tt := range map[string]struct {
		script []string
		want   string
	}{
		"an answer":  {[]string{start, itemA, `{N,"event":"end","id":"1"}`}, "started item"},
		"a refusal":  {[]string{`{N,"event":"overloaded"}`}, ""},
		"items late": {[]string{start}, "started"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newClient(t, &stream.Client{Dial: scripted(t, answer(tt.script...))})
				var got []string
				req := text("x")
				req.Hooks = &stream.Hooks{Started: func() { got = append(got, "started") }}
				for _, err := range c.Stream(t.Context(), "peer", req) {
					if err == nil {
						got = append(got, "item")
					}
				}
				if s := strings.Join(got, " "); s != tt.want {
					t.Errorf("got %q, want %q", s, tt.want)
				}
			})
		})
	}
}
