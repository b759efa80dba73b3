package instances

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/charmbracelet/x/ansi"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

// noon is the present of the tables.
func noon() time.Time { return time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC) }

func downFor(kind, reporter, reason string, since, until time.Duration) *reportRow {
	return &reportRow{Kind: kind, Reporter: reporter, Reason: reason, Since: noon().Add(-since), Until: noon().Add(until)}
}

// healthy is two servers.
func healthy() []instanceRow {
	return []instanceRow{
		{ID: 0x66ac93a09cd1e, Name: "server1", Address: "127.0.0.1:38643", Transport: discovery.NDJSON, Source: true, Avail: true},
		{ID: 0x1b14f8d7a8771a, Name: "server2", Address: "127.0.0.1:38313", Transport: discovery.NDJSON, Source: true, Avail: true},
	}
}

// downOnly is two servers of which one is down.
func downOnly() []instanceRow {
	rows := healthy()
	rows[0].Avail = false
	rows[0].Down = downFor("failed", "laptop-4711", "Stream ended before generation completed", 1200*time.Millisecond, 3800*time.Millisecond)
	return rows
}

// mixed is some of everything that there can be.
func mixed() []instanceRow {
	rows := downOnly()
	ms := 0.8125
	rows[1].Probe = &probeResult{MS: &ms}
	rows[0].Probe = &probeResult{Kind: stream.Unresponsive}
	return append(rows,
		instanceRow{ID: 0x4d2, Address: "10.0.0.7:9999", Transport: "nats_tcp", Source: true},
		instanceRow{ID: 0x77, Down: downFor("unreachable", "laptop-4711", "no connection to 127.0.0.1:1", 3*time.Minute, 0)},
	)
}

// TestTable holds the tables against ones that were looked at.
func TestTable(t *testing.T) {
	for _, test := range []struct {
		name  string
		rows  []instanceRow
		width int
		want  string
	}{
		{"nobody", nil, 0, "ID  NAME  ADDRESS  SOURCE  AVAIL\n"},
		{"healthy, in a pipe", healthy(), 0, `
ID              NAME     ADDRESS          SOURCE  AVAIL
66ac93a09cd1e   server1  127.0.0.1:38643  yes     yes
1b14f8d7a8771a  server2  127.0.0.1:38313  yes     yes
`},
		{"healthy, in 40 columns", healthy(), 40, `
ID              NAME     SOURCE  AVAIL
66ac93a09cd1e   server1  yes     yes
1b14f8d7a8771a  server2  yes     yes
`},
		{"one down, in 40 columns", downOnly(), 40, `
ID         NAME     AVAIL  WHY     BACK
66ac93a0…  server1  no     failed  in 4s
1b14f8d7…  server2  yes
`},
		{"one down, in 80 columns", downOnly(), 80, `
ID              NAME     ADDRESS          SOURCE  AVAIL  WHY     AGO  BACK
66ac93a09cd1e   server1  127.0.0.1:38643  yes     no     failed  1s   in 4s
1b14f8d7a8771a  server2  127.0.0.1:38313  yes     yes
`},
		{"mixed, in a pipe", mixed(), 0, `
ID              NAME     ADDRESS          SOURCE  AVAIL  PROBE         WHY          AGO  BACK   BY           REASON
66ac93a09cd1e   server1  127.0.0.1:38643  yes     no     unresponsive  failed       1s   in 4s  laptop-4711  Stream ended before generation completed
1b14f8d7a8771a  server2  127.0.0.1:38313  yes     yes    0.8ms
4d2                      10.0.0.7:9999    yes     no                   transport nats_tcp: listed, not routed to
77                                        no      no                   unreachable  3m   now    laptop-4711  no connection to 127.0.0.1:1
`},
		{"mixed, in 120 columns", mixed(), 120, `
ID              NAME     ADDRESS          SOURCE  AVAIL  PROBE         WHY          AGO  BACK   REASON
66ac93a09cd1e   server1  127.0.0.1:38643  yes     no     unresponsive  failed       1s   in 4s  Stream ended before gen…
1b14f8d7a8771a  server2  127.0.0.1:38313  yes     yes    0.8ms
4d2                      10.0.0.7:9999    yes     no                   transport nats_tcp: listed, not routed to
77                                        no      no                   unreachable  3m   now    no connection to 127.0.…
`},
		{"mixed, in 80 columns", mixed(), 80, `
ID              NAME     SOURCE  AVAIL  PROBE         WHY          BACK
66ac93a09cd1e   server1  yes     no     unresponsive  failed       in 4s
1b14f8d7a8771a  server2  yes     yes    0.8ms
4d2                      yes     no                   transport nats_tcp: liste…
77                       no      no                   unreachable  now
`},
		{"mixed, in 40 columns", mixed(), 40, `
ID        NAME     AVAIL  PROBE   WHY
66ac93a…  server1  no     unres…  failed
1b14f8d…  server2  yes    0.8ms
4d2                no             trans…
77                 no             unrea…
`},
		{"mixed, in 20 columns", mixed(), 20, `
NAME     AVAIL
server1  no
server2  yes
         no     tra…
         no
`},
	} {
		got := strings.Join(newTable(test.rows, palette{}, noon()).lines(test.width), "\n") + "\n"
		if want := strings.TrimPrefix(test.want, "\n"); got != want {
			t.Errorf("%s:\n%s\nwant:\n%s", test.name, got, want)
		}
	}
}

// TestTableFitsEveryWidth lays out what others may have chosen to break it.
func TestTableFitsEveryWidth(t *testing.T) {
	rows := append(mixed(),
		instanceRow{
			ID: 1<<64 - 1, Name: "\x1b[2J\n\tserver\u202e" + strings.Repeat("很", 100), Source: true, Transport: "\x1b]0;title\a",
			Address: strings.Repeat("a", 300) + "\r\n:1",
		},
		instanceRow{
			ID: 2, Name: "evil", Source: true, Transport: discovery.NDJSON,
			Down: downFor("\x1b[31mkind", "re\x9bporter\x07", "two\nlines and "+strings.Repeat("é", 1000), 0, time.Hour),
		},
	)
	v := instancesView{Rows: rows, Stale: "no\x1b[1mstore"}
	for _, p := range []palette{{}, colours()} {
		for width := range 250 {
			lines := v.tableLines(p, width, noon())
			if len(lines) != len(rows)+2 {
				t.Fatalf("%d rows make %d lines in %d columns", len(rows), len(lines), width)
			}
			for _, line := range lines {
				if got := ansi.StringWidth(line); width > 0 && got > width {
					t.Errorf("a line is %d columns wide, of %d: %q", got, width, line)
				}
				if plain := ansi.Strip(line); strings.ContainsFunc(plain, unicode.IsControl) || strings.Contains(plain, "\u202e") {
					t.Errorf("a line has control characters in %d columns: %q", width, line)
				}
				if p == (palette{}) && strings.Contains(line, "\x1b") {
					t.Errorf("a line has colours: %q", line)
				}
			}
		}
	}
}

// TestTableColours shows what is coloured, and that it changes no column.
func TestTableColours(t *testing.T) {
	plain, coloured := newTable(mixed(), palette{}, noon()).lines(100), newTable(mixed(), colours(), noon()).lines(100)
	for i, line := range coloured {
		if got := ansi.Strip(line); strings.TrimRight(got, " ") != plain[i] {
			t.Errorf("without its colours a line is %q, want %q", got, plain[i])
		}
	}
	for i, want := range []string{"\x1b[1mNAME\x1b[m", "\x1b[31mno\x1b[m", "\x1b[32myes\x1b[m", "\x1b[2mtransport "} {
		if !strings.Contains(coloured[i], want) {
			t.Errorf("line %d is %q, want %q in it", i, coloured[i], want)
		}
	}
}

// BenchmarkTable is what `migrate instances` does with ten thousand instances,
// of which one in ten is down, once they are read.
func BenchmarkTable(b *testing.B) {
	var list discovery.Instances
	var reports discovery.Reports
	for i := range 10_000 {
		in := discovery.Instance{ID: discovery.InstanceID(1<<50 + i), Name: fmt.Sprint("server", i), Transport: discovery.NDJSON, Address: "10.0.0.1:40000"}
		list.List = append(list.List, in)
		if i%10 == 0 {
			reports.List = append(reports.List, discovery.Report{Instance: in.ID, Reporter: "r", Kind: "failed", Reason: "it broke", Since: noon(), Until: noon().Add(5 * time.Second)})
		}
	}
	for name, p := range map[string]palette{"plain": {}, "coloured": colours()} {
		for _, width := range []int{0, 80} {
			b.Run(fmt.Sprintf("%s/width=%d", name, width), func(b *testing.B) {
				for b.Loop() {
					newInstancesView(discovery.Endpoint{}, list, reports, noon()).tableLines(p, width, noon())
				}
			})
		}
	}
	b.Run("frame", func(b *testing.B) {
		for b.Loop() {
			newInstancesView(discovery.Endpoint{}, list, reports, noon()).frame(palette{}, 80, 24, noon())
		}
	})
}
