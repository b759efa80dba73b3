//go:build unix

package cmd_test

import (
	"strings"
	"testing"
)

// TestInstanceByID asks for an instance by its id, in every form in which people
// write a number in hex.
func TestInstanceByID(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve(t, "other")
	w.serve(t, "server1")
	w.serve(t, "CAFE") // a name that is a number, too
	id := w.view(t).named(t, "server1").ID
	for text, want := range map[string]string{
		id: "server1", strings.ToUpper(id): "server1", "0x" + id: "server1", "0X" + strings.ToUpper(id): "server1",
		"00" + id: "server1", "CAFE": "CAFE",
	} {
		out, _ := w.run(t, 0, nil, "migrate", "request", "hello", "--instance", text, "--output", "json")
		all, err := parseEvents(out)
		if err != nil {
			t.Fatal(err)
		}
		if got := all[0].receipt().Attempts[0].Name; got != want {
			t.Errorf("--instance %s asks %s, want %s", text, got, want)
		}
	}
}
