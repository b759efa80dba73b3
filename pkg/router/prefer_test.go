package router

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

// A preferred instance is asked while it will do, and nothing fails where it will not.
func TestPrefer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListing(instances(3)...)
		client := &servers{by: map[string]server{"server1": whole, "server2": whole, "server3": whole}}
		r := start(t, Config{Source: l, Client: client})
		asked := func(want string, steps ...Step) {
			t.Helper()
			client.calls = nil
			var got []Step
			req := traced(&Trace{Chosen: func(e ChosenEvent) { got = append(got, e.Step) }})
			req.Prefer = "server2"
			if _, err := ask(t.Context(), r, req); err != nil {
				t.Error(err)
			}
			if client.asked() != want || len(got) == 0 || got[0] != steps[0] {
				t.Errorf("asked %s in steps %v, want %s in %v", client.asked(), got, want, steps)
			}
		}
		asked("server2", StepPreferred) // right after New
		client.by["server2"] = breaking(stream.Reset, 2)
		asked("server2 server1", StepPreferred) // then it is down
		asked("server1", StepAvail)
		client.by["server2"] = whole
		sleep(DefaultCooldown)
		asked("server2", StepPreferred)
		r.tiers.backOff(find(r.Tiers().Source, 2), time.Minute)
		asked("server1", StepAvail)
		l.list(instance(1), instance(3)) // it leaves
		synctest.Wait()
		asked("server1", StepAvail)
	})
}

// last picks the last instance, and counts how often it was asked.
type last struct {
	asked  int
	choice Choice
}

func (p *last) Pick(c Choice, avail []*Peer) *Peer {
	p.asked++
	p.choice = c
	return avail[len(avail)-1]
}

// A picker sees the request, and one that repeats itself is not asked in vain.
func TestPickerSeesRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &servers{by: map[string]server{"server1": whole, "server2": breaking(stream.Reset, 2)}}
		p := &last{}
		r := start(t, Config{Source: newListing(instances(2)...), Client: client, Picker: p})
		req := hello()
		req.Key = "session7"
		if got, err := ask(t.Context(), r, req); got != "he|llo" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if p.choice != (Choice{Key: "session7", Attempt: 2, Prefix: true}) {
			t.Errorf("the picker saw %+v", p.choice)
		}
		p.asked = 0
		client.by["server2"] = func(context.Context, stream.Request, func(string) bool) error { return stream.ErrDraining }
		sleep(DefaultCooldown)
		if _, err := ask(t.Context(), r, req); err != nil {
			t.Error(err)
		}
		// Once, then the same again, which says that it would go on so, then of those left.
		if p.asked != 4 {
			t.Errorf("the picker was asked %d times, want 4", p.asked)
		}
	})
}

type nobody struct{}

func (nobody) Pick(Choice, []*Peer) *Peer { return nil }

// A picker may take none.
func TestPickerTakesNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Config{Source: newListing(instances(2)...), Picker: nobody{}})
		_, err := ask(t.Context(), r, hello())
		if !errors.Is(err, ErrNoInstances) || !strings.Contains(err.Error(), "2 in source, the picker takes none of them") {
			t.Errorf("%v", err)
		}
	})
}

// A request goes on behind the items that its caller has, and says if nobody can.
func TestComesBack(t *testing.T) {
	items := parseItems(`"h" "e"`)
	for name, tt := range map[string]struct {
		resume []discovery.Resume
		from   int
		prefix []stream.Annotated
		want   string
		asked  string
		err    error
	}{
		"by index":            {[]discovery.Resume{"no", "index"}, 2, nil, "llo", "2:2/0", nil},
		"nobody by index":     {[]discovery.Resume{"no", "prefix"}, 2, nil, "", "", ErrCannotResume},
		"by prefix":           {[]discovery.Resume{"no", "prefix"}, 2, items, "llo", "2:2/2", nil},
		"all by index":        {[]discovery.Resume{"index"}, 0, items, "llo", "1:2/0", nil},
		"compared":            {[]discovery.Resume{"no"}, 0, items, "llo", "1:0/0", nil},
		"differs":             {[]discovery.Resume{"no"}, 0, parseItems(`"h" "a"`), "", "1:0/0", ErrCannotResume},
		"not as many as said": {[]discovery.Resume{"no"}, 3, items, "", "", stream.ErrInvalidRequest},
		"below 0":             {[]discovery.Resume{"no"}, -1, nil, "", "", stream.ErrInvalidRequest},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fleet{}
				for _, resume := range tt.resume {
					f.engines = append(f.engines, engine{resume: resume, answer: strings.Fields(`"h" "e" "l" "l" "o"`), breaks: -1})
				}
				r := start(t, Config{Source: newListing(f.instances()...), Client: f})
				req := Request{Data: stream.String("x"), From: tt.from, Prefix: tt.prefix}
				got, index := "", -1
				var failed error
				for item, err := range r.Do(t.Context(), req) {
					if failed = err; err == nil {
						text, _ := item.Text()
						got += text
						if index < 0 {
							index = item.Index
						}
					}
				}
				if got != tt.want || !errors.Is(failed, tt.err) || strings.Join(f.asked, " ") != tt.asked || got != "" && index != 2 {
					t.Errorf("got %q from %d, %v, asked %v", got, index, failed, f.asked)
				}
			})
		})
	}
}
