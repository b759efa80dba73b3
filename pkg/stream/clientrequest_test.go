package stream_test

import (
	"context"
	"encoding/json"
	"net"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream"
)

// A request is sent with the time that is left: until Timeout or the context's
// deadline, whichever is sooner.
func TestTimeoutIsSent(t *testing.T) {
	const none = 0
	for name, tt := range map[string]struct {
		timeout, deadline, dial time.Duration
		want                    int64
	}{
		"none":                 {none, none, time.Second, 0},
		"timeout":              {10 * time.Second, none, none, 10_000},
		"deadline":             {none, 10 * time.Second, none, 10_000},
		"timeout first":        {2 * time.Second, 10 * time.Second, none, 2_000},
		"deadline first":       {10 * time.Second, 2 * time.Second, none, 2_000},
		"timeout, slow dial":   {10 * time.Second, none, time.Second, 9_000},
		"deadline, slow dial":  {none, 10 * time.Second, time.Second, 9_000},
		"hardly any":           {1, none, none, 1},
		"less than the dial's": {500 * time.Millisecond, none, time.Second, 1},
		"ages":                 {1 << 62, none, none, 365 * 24 * 3600 * 1000},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if tt.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tt.deadline)
					defer cancel()
				}
				dial := scripted(t, func(p *peer) {
					var got struct {
						MS int64 `json:"timeout_ms"`
					}
					if line := p.line(); json.Unmarshal([]byte(line), &got) != nil || got.MS != tt.want {
						t.Errorf("client sent %s, want %d ms", line, tt.want)
					}
					p.say(`{"stream":1,"event":"start","id":"0"}`, `{"stream":1,"event":"end","id":"0"}`)
					p.hold()
				})
				c := newClient(t, &stream.Client{Dial: after(tt.dial, dial)})
				req := text("x")
				req.Timeout = tt.timeout
				if _, err := items(ctx, c, "", req); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// after returns a dial that takes d longer.
func after(d time.Duration, dial func(context.Context, string) (net.Conn, error)) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		time.Sleep(d)
		return dial(ctx, addr)
	}
}

// Every field of a request reaches the handler.
func TestRequestArrives(t *testing.T) {
	got := make(chan stream.Request, 1)
	addr := serve(t, &stream.Server{Resumes: true, Handler: func(_ context.Context, req *stream.Request, _ func(stream.Annotated) error) error {
		got <- *req
		return nil
	}})
	want := stream.Request{
		ID: "b1946ac9d2c41f08", To: "p/llm/chat/4d2", Data: []byte(`{"a":[1]}`), From: 1, Attempt: 2,
		Prefix:  []stream.Annotated{{Data: []byte(`{"text":"é"}`), Event: "reasoning", Comment: []string{"a"}}},
		Timeout: time.Hour, Headers: map[string]string{"traceparent": "00-é\n", "baggage": ""},
	}
	if _, err := items(t.Context(), newClient(t, &stream.Client{}), addr, want); err != nil {
		t.Fatal(err)
	}
	arrived := <-got
	if arrived.Timeout > want.Timeout || arrived.Timeout < want.Timeout-patience {
		t.Errorf("an hour arrived as %v", arrived.Timeout)
	}
	arrived.Timeout, arrived.Peer = want.Timeout, want.Peer
	if !reflect.DeepEqual(arrived, want) {
		t.Errorf("%+v arrived as %+v", want, arrived)
	}
}
