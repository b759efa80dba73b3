package router

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

// engine is a server that gives an answer in items of its own, and carries it on in its
// own way. It breaks behind an item of the caller's count, once.
type engine struct {
	resume  discovery.Resume
	refuses bool     // whatever its record says
	answer  []string // its items, in the form of parseItems
	breaks  int      // how many items of a stream come before it breaks; -1: it does not break
	kind    stream.Kind
	limit   int // the record's MaxRequest
}

// fleet is a [Client] over engines, named in order.
type fleet struct {
	engines []engine
	asked   []string // what was asked of whom
}

func (f *fleet) instances() []discovery.Instance {
	list := instances(len(f.engines))
	for n, e := range f.engines {
		list[n].Resume, list[n].MaxRequest = e.resume, e.limit
	}
	return list
}

func (f *fleet) Stream(_ context.Context, i discovery.Instance, req stream.Request) iter.Seq2[stream.Annotated, error] {
	addr := i.Address
	return func(yield func(stream.Annotated, error) bool) {
		n := slices.IndexFunc(instances(len(f.engines)), func(i discovery.Instance) bool { return i.Address == addr })
		e := &f.engines[n]
		f.asked = append(f.asked, fmt.Sprintf("%s:%d/%d", strings.TrimPrefix(addr, "server"), req.From, len(req.Prefix)))
		answer := parseItems(strings.Join(e.answer, " "))
		switch {
		case req.From == 0:
		case e.refuses, e.resume == discovery.ResumeNo, e.resume == discovery.ResumePrefix && len(req.Prefix) != req.From:
			yield(stream.Annotated{}, &stream.Break{Kind: stream.Unresumable, Reason: "as told"})
			return
		case e.resume == discovery.ResumePrefix:
			answer = slices.DeleteFunc(answer, func(a stream.Annotated) bool { return a.Event != "" })
			rest := strings.TrimPrefix(joinText(answer), joinText(req.Prefix))
			answer = nil
			for _, r := range rest {
				answer = append(answer, stream.Annotated{Data: stream.String(string(r))})
			}
		default:
			answer = answer[req.From:]
		}
		for i, a := range answer {
			if i == e.breaks {
				break
			}
			if !yield(a, nil) {
				return
			}
		}
		if e.breaks >= 0 {
			yield(stream.Annotated{}, &stream.Break{Kind: cmpOr(e.kind, stream.Failed), Reason: "as told"})
			e.breaks = -1
		}
	}
}

func cmpOr(a, b stream.Kind) stream.Kind {
	if a == "" {
		return b
	}
	return a
}

// chars is an answer of one character an item.
func chars(text string) (items []string) {
	for _, r := range text {
		items = append(items, string(stream.String(string(r))))
	}
	return items
}

func TestCarryOn(t *testing.T) {
	const index, prefix, no = discovery.ResumeIndex, discovery.ResumePrefix, discovery.ResumeNo
	hello := chars("hello")
	whole := func(resume discovery.Resume, answer ...string) engine {
		return engine{resume: resume, answer: answer, breaks: -1}
	}
	breaks := func(n int, resume discovery.Resume, answer ...string) engine {
		return engine{resume: resume, answer: answer, breaks: n}
	}
	refuses := func(resume discovery.Resume) engine {
		return engine{resume: resume, refuses: true, answer: hello, breaks: -1}
	}
	diverges := []string{`"hal"`, `"lo"`}
	for _, tt := range []struct {
		name    string
		engines []engine
		max     int // of the prefix
		restart bool

		got   string // items in the form of parseItems
		ways  string // of the attempts after the first
		asked string // instance:from/prefix of each stream
		err   error
		why   string // part of the error's text
	}{
		{name: "by index", engines: []engine{breaks(2, index, hello...), whole(index, hello...)},
			got: `"h" "e" "l" "l" "o"`, ways: "index", asked: "1:0/0 2:2/0"},
		{name: "an instance that does not say is asked by index", engines: []engine{breaks(2, "", hello...), whole("", hello...)},
			got: `"h" "e" "l" "l" "o"`, ways: "index", asked: "1:0/0 2:2/0"},
		{name: "by prefix", engines: []engine{breaks(2, prefix, hello...), whole(prefix, hello...)},
			got: `"h" "e" "l" "l" "o"`, ways: "prefix", asked: "1:0/0 2:2/2"},
		{name: "replayed", engines: []engine{breaks(2, no, hello...), whole(no, hello...)},
			got: `"h" "e" "l" "l" "o"`, ways: "replay", asked: "1:0/0 2:0/0"},
		{name: "replayed in other items", engines: []engine{breaks(2, no, hello...), whole(no, `"hel"`, `"lo"`)},
			got: `"h" "e" "l" "lo"`, ways: "replay", asked: "1:0/0 2:0/0"},
		{name: "only the end was lost", engines: []engine{breaks(5, no, hello...), whole(no, `"hello"`)},
			got: `"h" "e" "l" "l" "o"`, ways: "replay", asked: "1:0/0 2:0/0"},
		{name: "nothing was delivered", engines: []engine{breaks(0, no, hello...), whole(no, hello...)},
			got: `"h" "e" "l" "l" "o"`, ways: "restart", asked: "1:0/0 2:0/0"},
		{name: "with Restart", restart: true, engines: []engine{breaks(2, no, hello...), whole(no, `"hel"`, `"lo"`)},
			got: `"h" "e" "hel" "lo"`, ways: "restart", asked: "1:0/0 2:0/0"},
		{name: "index before prefix before replay", engines: []engine{breaks(1, index, hello...), whole(no, hello...), whole(prefix, hello...), breaks(1, index, hello...)},
			got: `"h" "e" "l" "l" "o"`, ways: "index prefix", asked: "1:0/0 4:1/0 3:2/2"},
		{name: "no index behind items that did not come by index", engines: []engine{breaks(1, prefix, hello...), whole(index, hello...), whole(prefix, hello...)},
			got: `"h" "e" "l" "l" "o"`, ways: "prefix", asked: "1:0/0 3:1/1"},
		{name: "no index after a prefix", engines: []engine{breaks(1, prefix, hello...), breaks(1, prefix, hello...), whole(index, hello...)},
			got: `"h" "e" "l" "l" "o"`, ways: "prefix replay", asked: "1:0/0 2:1/1 3:0/0"},
		{name: "index again after an undivided replay", engines: []engine{breaks(2, no, hello...), breaks(3, index, hello...), whole(index, hello...)},
			got: `"h" "e" "l" "l" "o"`, ways: "replay index", asked: "1:0/0 2:0/0 3:3/0"},
		{name: "no index after a divided replay", engines: []engine{breaks(2, no, hello...), breaks(2, index, `"he"`, `"l"`, `"lo"`), whole(index, `"he"`, `"l"`, `"lo"`)},
			got: `"h" "e" "l" "lo"`, ways: "replay replay", asked: "1:0/0 2:0/0 3:0/0"},
		{name: "a replay breaks before its end", engines: []engine{breaks(3, no, hello...), breaks(2, no, hello...), whole(no, hello...)},
			got: `"h" "e" "l" "l" "o"`, ways: "replay replay", asked: "1:0/0 2:0/0 3:0/0"},
		{name: "refused, then replayed there", engines: []engine{breaks(2, "", hello...), refuses("")},
			got: `"h" "e" "l" "l" "o"`, ways: "replay", asked: "1:0/0 2:2/0 2:0/0"},
		{name: "refused, then nobody is asked for a prefix", engines: []engine{breaks(2, prefix, hello...), refuses(prefix), whole(prefix, hello...)},
			got: `"h" "e" "l" "l" "o"`, ways: "replay", asked: "1:0/0 2:2/2 2:0/0"},
		{name: "diverged, then elsewhere", engines: []engine{breaks(2, no, hello...), whole(no, diverges...), whole(no, hello...)},
			got: `"h" "e" "l" "l" "o"`, ways: "replay replay", asked: "1:0/0 2:0/0 3:0/0"},
		{name: "diverged twice", engines: []engine{breaks(2, no, hello...), whole(no, diverges...), whole(no, diverges...), whole(no, hello...)},
			got: `"h" "e"`, ways: "replay replay", asked: "1:0/0 2:0/0 3:0/0", err: ErrCannotResume, why: "at item 2 of an answer of endpoint dynamo/backend/generate: an answer that began anew differs"},
		{name: "diverged, and nobody left", engines: []engine{breaks(2, no, hello...), whole(no, `"h"`)},
			got: `"h" "e"`, ways: "replay", asked: "1:0/0 2:0/0", err: ErrCannotResume, why: "differs"},
		{name: "too long to be kept", max: 40, engines: []engine{breaks(4, index, hello...), whole(no, hello...)},
			got: `"h" "e" "l" "l"`, asked: "1:0/0", err: ErrCannotResume, why: "the 1 instances that are left do not resume by index, and the answer is too long to be kept"},
		{name: "too long to be kept, by index", max: 40, engines: []engine{breaks(4, index, hello...), whole(no, hello...), whole(index, hello...)},
			got: `"h" "e" "l" "l" "o"`, ways: "index", asked: "1:0/0 3:4/0"},
		{name: "a prefix too large for the instance", engines: []engine{breaks(4, prefix, hello...), {resume: prefix, limit: besidePrefix + 40, answer: hello, breaks: -1}},
			got: `"h" "e" "l" "l" "o"`, ways: "replay", asked: "1:0/0 2:0/0"},
		{name: "remarks", engines: []engine{breaks(3, no, `head=1`, `"h"`, `"e"`, `"llo"`), whole(no, `head=2`, `"hell"`, `"o"`, `chunk={}`)},
			got: `head=1 "h" "e" "ll" "o" chunk={}`, ways: "replay", asked: "1:0/0 2:0/0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fleet{engines: tt.engines}
				r := start(t, Config{Source: newListing(f.instances()...), Client: f, MaxPrefix: tt.max, Restart: tt.restart})
				var got []stream.Annotated
				var ways []string
				var err error
				req := Request{ID: "r1", Data: stream.String("hello"), Trace: &Trace{
					Chosen:  func(e ChosenEvent) { ways = append(ways, string(e.Way)) },
					Refused: func(BreakEvent) { ways = ways[:len(ways)-1] },
				}}
				for item, e := range r.Do(t.Context(), req) {
					if err = e; err != nil {
						break
					}
					if !tt.restart && item.Index != len(got) {
						t.Errorf("item %d has index %d", len(got), item.Index)
					}
					got = append(got, item.Annotated)
				}
				if got := formatItems(got); got != tt.got {
					t.Errorf("got %s, want %s", got, tt.got)
				}
				if got := strings.Join(ways[1:], " "); got != tt.ways {
					t.Errorf("carried on by %s, want %s", got, tt.ways)
				}
				if got := strings.Join(f.asked, " "); got != tt.asked {
					t.Errorf("asked %s, want %s", got, tt.asked)
				}
				if !errors.Is(err, tt.err) || err != nil && !strings.Contains(err.Error(), tt.why) {
					t.Errorf("the error is %v, want %v, which says %q", err, tt.err, tt.why)
				}
			})
		})
	}
}

// Where every instance resumes by index, no item is kept; an instance that joins later and
// begins at the first item only cannot help then.
func TestCarryOnWithoutKeeping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{engines: []engine{
			{resume: discovery.ResumeIndex, answer: chars("hello"), breaks: 2},
			{resume: discovery.ResumeNo, answer: chars("hello"), breaks: -1},
		}}
		l := newListing(f.instances()[0])
		r := start(t, Config{Source: l, Client: f})
		req := hello()
		n := 0
		var err error
		for _, e := range r.Do(t.Context(), req) {
			if err = e; err != nil {
				break
			}
			if n++; n == 1 {
				l.list(f.instances()...)
				synctest.Wait()
			}
		}
		const want = "cannot carry on at item 2 of an answer of endpoint dynamo/backend/generate: the 1 instances that are left do not resume by index, as all did when it began"
		if n != 2 || !errors.Is(err, ErrCannotResume) || !errors.Is(err, stream.Failed) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("after %d items: %v, want %s", n, err, want)
		}
	})
}
