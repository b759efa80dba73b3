package request

import (
	"testing"

	"github.com/request-migration/migrate/pkg/stream"
)

// TestAnnotated shows items of every kind as text.
func TestAnnotated(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		item stream.Annotated
		want string
	}{
		{stream.Annotated{Data: []byte(`"a\n"`)}, `Annotated { data: Some("a\n"), id: None, event: None, comment: None }`},
		{stream.Annotated{Data: []byte(`{"text":"a"}`)}, `Annotated { data: Some({"text":"a"}), id: None, event: None, comment: None }`},
		{stream.Annotated{Data: []byte(`[1,null]`), Event: "head"}, `Annotated { data: Some([1,null]), id: None, event: Some("head"), comment: None }`},
		{stream.Annotated{Data: []byte("{\"a\":\"\u009b2J\u202e\"}")}, `Annotated { data: Some({"a":"\u009b2J\u202e"}), id: None, event: None, comment: None }`},
	} {
		if got := string(appendAnnotated(nil, tt.item)); got != tt.want {
			t.Errorf("%s reads\n%s\nwant\n%s", tt.item.Data, got, tt.want)
		}
	}
}
