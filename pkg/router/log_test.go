package router

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// record returns a logger and what was logged so far: a line each, with the
// fake time since the first call, level and text, without attributes.
func record() (*slog.Logger, func() string) {
	var b bytes.Buffer
	begin := time.Now()
	h := slog.NewTextHandler(&b, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			switch a.Key {
			case slog.TimeKey:
				return slog.String("at", a.Value.Time().Sub(begin).String())
			case slog.LevelKey, slog.MessageKey:
				return a
			}
			return slog.Attr{}
		},
	})
	return slog.New(h), b.String
}

// The log has the lines that people search for.
func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, logged := record()
		client := &servers{by: map[string]server{"server10": after(time.Second, breaking(stream.Failed, 2)), "server32": whole}}
		i := instance(10)
		i.ID = 0x1f
		r := start(t, Config{Source: newListing(i, instance(32)), Client: client, Logger: log})
		for range 2 {
			if _, err := ask(t.Context(), r, hello()); err != nil {
				t.Error(err)
			}
		}
		sleep(10 * time.Second)
		want := `
at=1s level=DEBUG msg="stream broke"
at=1s level=DEBUG msg="Reporting instance 1f down due to stream error"
at=1s level=DEBUG msg="inhibiting instance 1f"
at=1s level=INFO msg="instance 1f is down"
at=5s level=DEBUG msg="periodic reconciliation for endpoint=dynamo/backend/generate"
at=6s level=INFO msg="restoring instance 1f"
at=10s level=DEBUG msg="periodic reconciliation for endpoint=dynamo/backend/generate"
`
		got := logged()
		if _, got, _ = strings.Cut(got, "msg=instance_source"); got != want {
			t.Errorf("log:%swant:%s", got, want)
		}
	})
}

// The router logs once what does not change.
func TestLogOfSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, logged := record()
		l := newListing()
		l.change(nil, errBoom)
		start(t, Config{Source: l, Logger: log})
		sleep(3500 * time.Millisecond)
		if n := strings.Count(logged(), "level=WARN"); n != 1 {
			t.Errorf("%d warnings:\n%s", n, logged())
		}
		l.list(instance(1))
		sleep(time.Second)
		l.change(nil, errBoom)
		synctest.Wait()
		if n := strings.Count(logged(), "level=WARN"); n != 2 {
			t.Errorf("%d warnings:\n%s", n, logged())
		}
	})
}
