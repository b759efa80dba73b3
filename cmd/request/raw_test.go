package request

import (
	"bytes"
	"errors"
	"testing"

	"github.com/request-migration/migrate/cmd/internal/outlet"
	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/router/receipt"
	"github.com/request-migration/migrate/pkg/stream"
)

// TestRawItem shows what each kind of item contributes to the answer.
func TestRawItem(t *testing.T) {
	t.Parallel()
	const echoed = `"from server: server1, data: x"`
	for name, tt := range map[string]struct {
		engine string
		item   stream.Annotated
		want   string
	}{
		"an echo":                 {"echo", stream.Annotated{Data: []byte(echoed)}, "x"},
		"of an unknown engine":    {"", stream.Annotated{Data: []byte(echoed)}, "x"},
		"that a command says":     {"command", stream.Annotated{Data: []byte(echoed)}, "from server: server1, data: x"},
		"a string":                {"command", stream.Annotated{Data: []byte(`"a\n"`)}, "a\n"},
		"an object with text":     {"openai", stream.Annotated{Data: []byte(`{"text":"a\"b","tokens":3}`)}, `a"b`},
		"an object without":       {"command", stream.Annotated{Data: []byte(`{ "Text": "a" }`)}, `{"Text":"a"}`},
		"text that is no string":  {"command", stream.Annotated{Data: []byte(`{"text": 1}`)}, `{"text":1}`},
		"any other value":         {"command", stream.Annotated{Data: []byte("[1, null,\n2]")}, `[1,null,2]`},
		"a remark":                {"openai", stream.Annotated{Data: []byte(`{"text":"a"}`), Event: "reasoning"}, ""},
		"a string with an event":  {"", stream.Annotated{Data: []byte(echoed), Event: "token"}, ""},
		"an item with an id only": {"", stream.Annotated{Data: []byte(`"a"`), ID: "7"}, "a"},
	} {
		i := router.Item{Annotated: tt.item, Peer: &router.Peer{Instance: &discovery.Instance{Engine: tt.engine}}}
		if got := rawItem(i); got != tt.want {
			t.Errorf("%s: the item %s contributes %q, want %q", name, tt.item.Data, got, tt.want)
		}
	}
}

// TestRawEnds shows where a newline is added to an answer.
func TestRawEnds(t *testing.T) {
	t.Parallel()
	broke := errors.New("broke")
	for name, tt := range map[string]struct {
		items []string
		err   error
		want  string
	}{
		"no line":          {[]string{"a", "b"}, nil, "ab\n"},
		"lines":            {[]string{"a\n", "b\n"}, nil, "a\nb\n"},
		"the last is none": {[]string{"a\n", "b"}, nil, "a\nb\n"},
		"nothing":          {nil, nil, "\n"},
		"part of a line":   {[]string{"a"}, broke, "a\n"},
		"some lines":       {[]string{"a\n"}, broke, "a\n"},
		"nothing, broken":  {nil, broke, ""},
	} {
		for _, hold := range []bool{false, true} {
			var b bytes.Buffer
			out := outlet.NewAnswers(&b)
			o := &rawOutput{printer: &printer{out: out}, hold: hold}
			trace := o.trace(t.Context())
			for _, s := range tt.items {
				trace.Item(router.Item{Annotated: stream.Annotated{Data: stream.String(s)}, Peer: &router.Peer{Instance: &discovery.Instance{}}})
			}
			o.done(t.Context(), receipt.Receipt{}, tt.err)
			out.Close()
			want := tt.want
			if hold && tt.err != nil {
				want = "" // not whole
			}
			if b.String() != want {
				t.Errorf("%s, held back: %v: printed is %q, want %q", name, hold, b.String(), want)
			}
		}
	}
}
