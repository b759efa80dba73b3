package stream_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// What a server says besides the kind of a break reaches the client.
func TestBreakData(t *testing.T) {
	const broken = `"comment":["Stream ended before generation completed","x"]`
	for line, want := range map[string]stream.Break{
		`{N,"event":"error",` + broken + `,"data":{"report":false}}`:                {Kind: stream.Failed, Reason: "x", Data: []byte(`{"report":false}`), NoReport: true},
		`{N,"event":"error",` + broken + `,"data":{"report":true}}`:                 {Kind: stream.Failed, Reason: "x", Data: []byte(`{"report":true}`)},
		`{N,"event":"error",` + broken + `,"data":{"report":"no"}}`:                 {Kind: stream.Failed, Reason: "x", Data: []byte(`{"report":"no"}`)},
		`{N,"event":"error",` + broken + `,"data":[]}`:                              {Kind: stream.Failed, Reason: "x", Data: []byte(`[]`)},
		`{N,"event":"overloaded","comment":["x"],"data":{"retry_after_ms":1500}}`:   {Kind: stream.Overloaded, Reason: "x", Data: []byte(`{"retry_after_ms":1500}`), RetryAfter: 1500 * time.Millisecond},
		`{N,"event":"overloaded","comment":["x"],"data":{"retry_after_ms":-1}}`:     {Kind: stream.Overloaded, Reason: "x", Data: []byte(`{"retry_after_ms":-1}`)},
		`{N,"event":"overloaded","comment":["x"],"data":7}`:                         {Kind: stream.Overloaded, Reason: "x", Data: []byte(`7`)},
		`{N,"event":"draining","comment":["x"],"data":{"retry_after_ms":1}}`:        {Kind: stream.Draining, Reason: "x", Data: []byte(`{"retry_after_ms":1}`), RetryAfter: time.Millisecond},
		`{N,"event":"unresumable","comment":["x"],"data":{"retry_after_ms":1}}`:     {Kind: stream.Unresumable, Reason: "x", Data: []byte(`{"retry_after_ms":1}`), RetryAfter: time.Millisecond},
		`{"event":"overloaded","comment":["x"],"data":{"retry_after_ms":9e3}}`:      {Kind: stream.Overloaded, Reason: "x", Data: []byte(`{"retry_after_ms":9e3}`), RetryAfter: 9 * time.Second},
		`{"event":"overloaded","comment":["x"],"data":{"retry_after_ms":9000}}`:     {Kind: stream.Overloaded, Reason: "x", Data: []byte(`{"retry_after_ms":9000}`), RetryAfter: 9 * time.Second},
		`{N,"event":"sleeping","comment":["x"],"data":{"retry_after_ms":20}}`:       {Kind: stream.Overloaded, Reason: "server refuses with sleeping: x", Data: []byte(`{"retry_after_ms":20}`), RetryAfter: 20 * time.Millisecond},
		`{N,"event":"overloaded","comment":["x"],"data":{"retry_after_ms":1e300}}`:  {Kind: stream.Overloaded, Reason: "x", Data: []byte(`{"retry_after_ms":1e300}`), RetryAfter: 365 * 24 * time.Hour},
		`{N,"event":"misdirected","comment":["x","y"],"data":{"retry_after_ms":1}}`: {Kind: stream.Misdirected, Reason: "x; y", Data: []byte(`{"retry_after_ms":1}`)},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newClient(t, &stream.Client{Dial: scripted(t, answer(line))})
			_, err := items(t.Context(), c, "", text("x"))
			b := asBreak(t, err)
			if b.Kind != want.Kind || b.Reason != want.Reason || string(b.Data) != string(want.Data) || b.RetryAfter != want.RetryAfter ||
				b.NoReport != want.NoReport || b.NoShare || b.Paused || b.Err != nil {
				t.Errorf("%s: %+v, want %+v", line, *b, want)
			}
		})
	}
}

// A request's own failure keeps the handler's text and data.
func TestApplicationError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, &stream.Client{Dial: scripted(t, answer(start, `{N,"event":"error","comment":["no such model","m"],"data":{"code":404}}`))})
		_, err := items(t.Context(), c, "", text("x"))
		said, ok := errors.AsType[*stream.Error](err)
		if !ok || said.Message != "no such model; m" || string(said.Data) != `{"code":404}` {
			t.Errorf("%v says %+v", err, said)
		}
		if b := asBreak(t, err); b.Kind != stream.Application || b.Error() != "application: no such model; m" || string(b.Data) != `{"code":404}` {
			t.Errorf("%+v", b)
		}
	})
}

// A break's text is its error without the kind.
func TestBreakText(t *testing.T) {
	for _, b := range []*stream.Break{
		{Kind: stream.Truncated, Reason: "connection closed"},
		{Kind: stream.Reset, Reason: "connection lost", Err: errors.New("broken pipe")},
		{Kind: stream.Application, Reason: "no such model", Err: &stream.Error{Message: "no such model"}},
	} {
		if got := b.Kind.Error() + ": " + b.Text(); got != b.Error() {
			t.Errorf("text %q of %q", b.Text(), b.Error())
		}
	}
	b := &stream.Break{Kind: stream.Reset, Reason: "connection lost", Err: errors.New("broken pipe")}
	if got := b.Text(); got != "connection lost: broken pipe" {
		t.Errorf("the text is %q", got)
	}
}
