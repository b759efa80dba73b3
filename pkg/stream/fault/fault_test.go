package fault_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/request-migration/migrate/pkg/stream/fault"
)

func TestParseMode(t *testing.T) {
	for s, want := range map[string]string{
		"never": "never", "first": "first request only", "always": "always",
		"1": "first request only", "3": "request 3 only", "2-4": "requests 2 to 4", "5-5": "request 5 only",
	} {
		if m, err := fault.ParseMode(s); m.String() != want || err != nil {
			t.Errorf("%s: %v, %v, want %s", s, m, err, want)
		}
	}
	for _, s := range []string{"", "sometimes", "Never", "0", "-1", "3-2", "0-2", "1-", "-", "1-2-3", "1.5", "99999999999999999999"} {
		_, err := fault.ParseMode(s)
		if err == nil {
			t.Errorf("%q is taken", s)
			continue
		}
		for _, name := range append(fault.ModeNames(), "2-4", fmt.Sprintf("%q", s)) {
			if !strings.Contains(err.Error(), name) {
				t.Errorf("%q: %v does not mention %s", s, err, name)
			}
		}
	}
}

func TestParseKind(t *testing.T) {
	_, bad := fault.ParseKind("explode")
	if bad == nil || !strings.Contains(bad.Error(), `"explode"`) {
		t.Fatalf("explode: %v", bad)
	}
	for _, kind := range fault.Kinds() {
		if k, err := fault.ParseKind(string(kind)); k != kind || err != nil {
			t.Errorf("%s: %v, %v", kind, k, err)
		}
		if !strings.Contains(bad.Error(), string(kind)) {
			t.Errorf("%v does not mention %s", bad, kind)
		}
	}
	if _, err := fault.ParseKind(""); err == nil {
		t.Error("an empty kind is taken")
	}
}
