package stream_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/request-migration/migrate/pkg/stream"
	"github.com/request-migration/migrate/pkg/stream/fault"
)

const (
	chat  = "p/llm/chat/4d2"
	embed = "p/llm/embed/1f"
)

// A server refuses requests for another one before they start, and does not
// count them; a server without names accepts every request.
func TestMisdirected(t *testing.T) {
	var mu sync.Mutex
	var refused []error
	s := &stream.Server{
		MaxStreams: 1,
		Admit: func(req stream.Request) error {
			if req.To == chat {
				t.Error("Admit was asked about a request for another server")
			}
			return nil
		},
		Refused: func(_ stream.Request, err error) {
			mu.Lock()
			defer mu.Unlock()
			refused = append(refused, err)
		},
		Handler: func(_ context.Context, req *stream.Request, send func(stream.Annotated) error) error {
			return send(stream.Annotated{Data: stream.String(req.To)})
		},
	}
	p := dialPeer(t, serve(t, s))
	taken := func(number int, to string) {
		t.Helper()
		p.say(fmt.Sprintf(`{"stream":%d,"id":"x","to":"%s","data":"x"}`, number, to))
		p.expect(fmt.Sprintf(`{"stream":%d,"event":"start","id":"0"}`, number), fmt.Sprintf(`{"stream":%d,"data":"%s"}`, number, to),
			fmt.Sprintf(`{"stream":%d,"event":"end","id":"1"}`, number))
	}
	taken(1, embed)
	s.SetNames(embed)
	taken(2, embed)
	taken(3, "")
	p.say(`{"stream":4,"id":"x","to":"`+chat+`","data":"x"}`, `{"to":"`+chat+`","data":"x","from":3}`)
	p.expect(`{"stream":4,"event":"misdirected","comment":["this is `+embed+`"]}`,
		`{"event":"misdirected","comment":["this is `+embed+`"]}`)
	s.SetNames(embed, "p/llm/rank/1f")
	taken(5, "p/llm/rank/1f")
	p.say(`{"stream":6,"to":"` + embed + `0","data":"x"}`)
	p.expect(`{"stream":6,"event":"misdirected","comment":["this is ` + embed + `, p/llm/rank/1f"]}`)
	var many []string
	for i := range 1000 {
		many = append(many, fmt.Sprintf("p/llm/chat/%d", i))
	}
	s.SetNames(many...)
	p.say(`{"stream":7,"to":"` + chat + `","data":"x"}`)
	p.expect(`{"stream":7,"event":"misdirected","comment":["this is ` + strings.Join(many[:8], ", ") + ` and 992 more"]}`)
	s.SetNames()
	p.say(`{"to":"` + embed + `0","data":"x"}`)
	p.expect(`{"event":"start","id":"0"}`, `{"data":"`+embed+`0"}`, `{"event":"end","id":"1"}`)
	mu.Lock()
	defer mu.Unlock()
	if len(refused) != 4 {
		t.Errorf("Refused was told of %d requests, want 4", len(refused))
	}
	for _, err := range refused {
		if !errors.Is(err, stream.Misdirected) {
			t.Errorf("Refused was told %v, want misdirected", err)
		}
	}
}

// A client's ping is answered at once, whatever else the server does, and is
// not a request: Admit is not called, and it takes no place.
func TestServerAnswersPings(t *testing.T) {
	const (
		ping        = `{"event":"ping"}`
		misdirected = `{"event":"misdirected","comment":["this is ` + embed + `"]}`
		draining    = `{"event":"draining","comment":["server is leaving"]}`
	)
	release := make(chan struct{})
	handler, running := held(release)
	injector := fault.Inject(handler, fault.Fault{Mode: fault.Mode{}, Kind: fault.Refuse})
	requests := 0
	s := &stream.Server{
		MaxStreams: 1, Handler: injector.Handle,
		Admit:   func(stream.Request) error { requests++; return nil },
		Refused: func(_ stream.Request, err error) { t.Errorf("a ping was refused: %v", err) },
	}
	addr := serve(t, s)
	p := dialPeer(t, addr)
	p.say(`{"event":"ping"}`, `{"event":"ping","to":"`+embed+`"}`, `{"stream":3,"event":"ping"}`)
	p.expect(ping, ping, ping)
	s.SetNames(embed)
	p.say(`{"event":"ping"}`, `{"event":"ping","to":"`+embed+`"}`, `{"event":"ping","to":"`+chat+`"}`, `{"stream":3,"event":"ping","to":"`+chat+`"}`)
	p.expect(ping, ping, misdirected, misdirected)
	p.say(`{"stream":1,"data":"x"}`)
	p.expect(`{"stream":1,"event":"start","id":"0"}`, `{"stream":1,"data":"x"}`)
	<-running
	p.say(`{"stream":1,"event":"ping"}`, `{"event":"ping"}`) // with every place taken, on that stream's number
	p.expect(ping, ping)
	var leaving sync.WaitGroup
	leaving.Go(func() { s.Shutdown(t.Context()) })
	other := dialPeer(t, addr)
	for other.say(`{"event":"ping"}`); ; other.say(`{"event":"ping"}`) {
		line := other.line()
		if line == draining {
			break
		}
		if line != ping {
			t.Fatalf("got %s, want a ping until the server drains", line)
		}
	}
	p.say(`{"event":"ping","to":"`+embed+`"}`, `{"event":"ping","to":"`+chat+`"}`)
	p.expect(draining, misdirected)
	close(release)
	p.expect(`{"stream":1,"event":"end","id":"1"}`)
	p.Close()
	other.Close()
	leaving.Wait()
	if requests != 1 {
		t.Errorf("Admit was asked %d times, want once", requests)
	}
}
