package owner_test

import (
	"testing"

	"github.com/request-migration/migrate/pkg/discovery/internal/owner"
)

func TestOwner(t *testing.T) {
	const ours = `{"incarnation":"a1","name":"x"}`
	for _, tt := range []struct {
		name          string
		ours, found   string
		same, damaged bool
	}{
		{"as it was put", ours, ours, true, false},
		{"edited", ours, `{"name":"y","incarnation":"a1"}`, true, false},
		{"another server's", ours, `{"incarnation":"b2","name":"x"}`, false, false},
		{"a record without incarnation", ours, `{"name":"x"}`, false, false},
		{"empty", ours, "", false, true},
		{"cut", ours, `{"incarnation":"a1","na`, false, true},
		{"no object", ours, `"a1"`, false, true},
		{"values of any kind", "one", "two", false, false},
		{"values of any kind, the same", "one", "one", true, false},
		{"values of any kind, empty", "one", "", false, true},
		{"both without incarnation", `{"v":1}`, `{"v":2}`, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := owner.Same([]byte(tt.ours), []byte(tt.found)); got != tt.same {
				t.Errorf("Same is %v", got)
			}
			if got := owner.Damaged([]byte(tt.ours), []byte(tt.found)); got != tt.damaged {
				t.Errorf("Damaged is %v", got)
			}
		})
	}
}
