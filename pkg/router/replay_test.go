package router

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/request-migration/migrate/pkg/stream"
)

// parseItems reads items that are separated by blanks: a JSON value each, behind
// EVENT= if it has an event.
func parseItems(s string) (items []stream.Annotated) {
	for field := range strings.FieldsSeq(s) {
		event, data, ok := strings.Cut(field, "=")
		if !ok {
			event, data = "", field
		}
		items = append(items, stream.Annotated{Event: event, Data: json.RawMessage(data)})
	}
	return items
}

func formatItems(items []stream.Annotated) string {
	var fields []string
	for _, a := range items {
		s := string(a.Data)
		if a.Event != "" {
			s = a.Event + "=" + s
		}
		fields = append(fields, s)
	}
	return strings.Join(fields, " ")
}

// replayed lets an answer come anew, and returns what of it is new.
func replayed(r *replay, answer []stream.Annotated) (news []stream.Annotated, err error) {
	for _, a := range answer {
		a, isNew, err := r.next(a)
		if err != nil {
			return news, err
		}
		if isNew {
			news = append(news, a)
		}
	}
	return news, r.end()
}

func TestReplay(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name          string
		known, answer string
		news          string
		undivided     bool
		err           string // part of it
	}{
		{name: "same items", known: `"a" "b"`, answer: `"a" "b" "c"`, news: `"c"`, undivided: true},
		{name: "nothing known", known: ``, answer: `"a"`, news: `"a"`, undivided: true},
		{name: "nothing new", known: `"a" "b"`, answer: `"a" "b"`, news: ``, undivided: true},
		{name: "divided otherwise, at the same end", known: `"a" "b"`, answer: `"ab" "c"`, news: `"c"`},
		{name: "the end in the middle of an item", known: `"a" "b"`, answer: `"abc" "d"`, news: `"c" "d"`},
		{name: "smaller items", known: `"abc"`, answer: `"a" "b" "c" "d"`, news: `"d"`},
		{name: "text of objects", known: `{"text":"a","tokens":1} "b"`, answer: `"a" {"x":1,"text":"bc"}`, news: `{"text":"c","x":1}`},
		{name: "escapes", known: `"\u0061\n"`, answer: `"a\n\u00e9"`, news: `"é"`},
		{name: "empty text", known: `"" "a" {"text":""}`, answer: `"a" "" "b"`, news: `"" "b"`},
		{name: "values at their place", known: `"a" {"n":1} "b"`, answer: `"a" {"n":1} "bc"`, news: `"c"`},
		{name: "text that is no string", known: `{"text":1}`, answer: `{"text":1} "a"`, news: `"a"`, undivided: true},
		{name: "key of another case", known: `{"Text":"a"}`, answer: `{"Text":"a"} "a"`, news: `"a"`, undivided: true},
		{name: "half a surrogate pair", known: `"\ud83d"`, answer: `"\ud83d" "a"`, news: `"a"`, undivided: true},
		{name: "another half", known: `"\ud83d"`, answer: `"\ud83e" "a"`, err: "item 0 differs"},
		{name: "text differs", known: `"a" "b"`, answer: `"a" "c"`, err: "item 1 differs"},
		{name: "text differs within an item", known: `"ab"`, answer: `"ac"`, err: "item 0 differs"},
		{name: "value differs", known: `"a" 1`, answer: `"a" 2`, err: "item 1 differs"},
		{name: "value in place of text", known: `"a" "b"`, answer: `"a" 1`, err: "item 1 differs"},
		{name: "value within text", known: `"ab"`, answer: `"a" 1`, err: "item 0 differs"},
		{name: "text in place of a value", known: `1`, answer: `"a"`, err: "item 0 differs"},
		{name: "text runs over a value", known: `"a" 1`, answer: `"ab"`, err: "item 1 differs"},
		{name: "too short", known: `"a" "b"`, answer: `"a"`, err: "ended at item 1 of the 2"},
		{name: "too short within an item", known: `"ab"`, answer: `"a"`, err: "ended at item 0 of the 1"},
		{name: "nothing came", known: `"a"`, answer: ``, err: "ended at item 0 of the 1"},
		{name: "remarks are not compared", known: `head=1 "a"`, answer: `head=2 x=1 "a" "b"`, news: `"b"`},
		{name: "the same remarks", known: `head=1 "a"`, answer: `head=1 "a" "b"`, news: `"b"`, undivided: true},
		{name: "a remark at the end is not given twice", known: `"a" chunk={}`, answer: `"a" chunk={} chunk=[]`, news: `chunk=[]`, undivided: true},
		{name: "a remark at the end that does not come again", known: `"a" chunk={}`, answer: `"a" "b" chunk={}`, news: `"b" chunk={}`},
		{name: "remarks alone", known: `head=1`, answer: `head=2 "a"`, news: `"a"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newReplay(parseItems(tt.known))
			news, err := replayed(r, parseItems(tt.answer))
			if tt.err != "" {
				if !errors.Is(err, stream.Diverged) || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("the error is %v, want one that has diverged and says %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := formatItems(news); got != tt.news {
				t.Errorf("new is %s, want %s", got, tt.news)
			}
			if got := r.undivided(); got != tt.undivided {
				t.Errorf("undivided is %v, want %v", got, tt.undivided)
			}
		})
	}
}

// FuzzReplay divides one answer at random, twice. Whatever the caller has of the first,
// and the second adds, is that answer; a caller whose answer differs is told so.
func FuzzReplay(f *testing.F) {
	f.Add("a small answer, with é and 👩‍👩‍👧", uint64(1))
	f.Add("", uint64(2))
	f.Fuzz(func(t *testing.T, text string, seed uint64) {
		text = strings.ToValidUTF8(text, "?")
		rng := rand.New(rand.NewPCG(seed, 0))
		had := divide(rng, text)
		had = had[:rng.IntN(len(had)+1)]
		has := joinText(had)
		again := divide(rng, text)
		news, err := replayed(newReplay(had), again)
		if err != nil {
			t.Fatalf("%s again as %s: %v", formatItems(had), formatItems(again), err)
		}
		if got := has + joinText(news); got != text {
			t.Fatalf("%s and %s are %q, want %q", formatItems(had), formatItems(news), got, text)
		}
		if has == "" {
			return
		}
		runes := []rune(text)
		runes[rng.IntN(len([]rune(has)))]++
		other := string(runes)
		news, err = replayed(newReplay(had), divide(rng, other))
		if other != text && !strings.HasPrefix(other, has) && (!errors.Is(err, stream.Diverged) || len(news) > 0) {
			t.Fatalf("%q again as %q: new is %s, the error %v", has, other, formatItems(news), err)
		}
	})
}

// divide divides text into items, with remarks and empty texts between.
func divide(rng *rand.Rand, text string) (items []stream.Annotated) {
	for runes := []rune(text); ; {
		n := rng.IntN(min(len(runes), 5) + 1)
		data := stream.String(string(runes[:n]))
		switch rng.IntN(4) {
		case 0:
			data = slices.Concat(json.RawMessage(`{"tokens":2,"text":`), data, json.RawMessage(`}`))
		case 1:
			items = append(items, stream.Annotated{Event: "remark", Data: json.RawMessage(`1`)})
		}
		items = append(items, stream.Annotated{Data: data})
		if runes = runes[n:]; len(runes) == 0 {
			return items
		}
	}
}

func joinText(items []stream.Annotated) string {
	var b strings.Builder
	for _, a := range items {
		if a.Event == "" {
			text, _ := textOf(a)
			b.WriteString(text)
		}
	}
	return b.String()
}

// An item with an event that is a part of the answer is compared, with its event, and a remark
// is not.
func TestReplayComparesContentWithEvent(t *testing.T) {
	part := func(event, data string) stream.Annotated {
		return stream.Annotated{Event: event, Data: json.RawMessage(data), Comment: []string{stream.CommentContent}}
	}
	remark := stream.Annotated{Event: "head", Data: json.RawMessage(`{"id":1}`)}
	known := []stream.Annotated{remark, part("chunk", `{"a":1}`), part("chunk", `{"a":2}`)}
	for name, test := range map[string]struct {
		came     []stream.Annotated
		diverges bool
	}{
		"the same":       {[]stream.Annotated{{Event: "head", Data: json.RawMessage(`{"id":2}`)}, part("chunk", `{"a": 1}`), part("chunk", `{"a":2}`)}, false},
		"another value":  {[]stream.Annotated{remark, part("chunk", `{"a":1}`), part("chunk", `{"a":3}`)}, true},
		"another event":  {[]stream.Annotated{remark, part("sse", `{"a":1}`)}, true},
		"text in place":  {[]stream.Annotated{{Data: json.RawMessage(`"a"`)}}, true},
		"value in place": {[]stream.Annotated{{Data: json.RawMessage(`{"a":1}`)}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReplay(known)
			var failed error
			for _, a := range test.came {
				if _, isNew, err := r.next(a); err != nil {
					failed = err
					break
				} else if isNew {
					t.Errorf("%v is new", a)
				}
			}
			if errors.Is(failed, stream.Diverged) != test.diverges || !test.diverges && !r.isOver() {
				t.Errorf("it ended with %v, over: %v", failed, r.isOver())
			}
			if test.diverges {
				return
			}
			if _, isNew, err := r.next(part("chunk", `{"a":3}`)); !isNew || err != nil {
				t.Errorf("what follows is new: %v, %v", isNew, err)
			}
		})
	}
}
