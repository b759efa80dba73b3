package instances

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

func listed(id discovery.InstanceID, name, incarnation string) discovery.Instance {
	return discovery.Instance{ID: id, Name: name, Transport: discovery.NDJSON, Address: "127.0.0.1:1", Incarnation: incarnation}
}

func reported(id discovery.InstanceID, incarnation, reporter string, until time.Duration) discovery.Report {
	return discovery.Report{
		Instance: id, Incarnation: incarnation, Reporter: reporter, Kind: "failed", Reason: "it broke",
		Since: noon().Add(-time.Second), Until: noon().Add(until),
	}
}

// unreachable is a report that rests on the reporter's own network as well.
func unreachable(id discovery.InstanceID, incarnation, reporter string, until time.Duration) discovery.Report {
	r := reported(id, incarnation, reporter, until)
	r.Kind, r.Reason = "unreachable", "no connection"
	return r
}

// TestViewBringsTiersTogether goes through what there may be of reports.
func TestViewBringsTiersTogether(t *testing.T) {
	tcp := listed(5, "foreign", "")
	tcp.Transport = "tcp"
	newer := listed(9, "newer", "")
	newer.Wire = discovery.WireVersion + 1
	list := discovery.Instances{List: []discovery.Instance{
		listed(1, "sound", "a"), listed(2, "down", "a"), listed(3, "restarted", "b"), listed(4, "twice", ""), tcp,
		listed(7, "cut off", "a"), listed(8, "unreachable", "a"), newer,
	}}
	reports := discovery.Reports{List: []discovery.Report{
		reported(2, "a", "r1", 4*time.Second),
		reported(3, "a", "r1", 4*time.Second), // the server before
		reported(4, "", "r1", 3*time.Second), reported(4, "", "r2", 5*time.Second), reported(4, "", "r3", time.Second),
		reported(6, "a", "r1", 4*time.Second), // has left
		unreachable(7, "a", "r1", 4*time.Second),
		unreachable(8, "a", "r1", 4*time.Second), unreachable(8, "a", "r2", 3*time.Second),
	}}
	v := newInstancesView(discovery.Endpoint{Namespace: "a", Component: "b", Name: "c"}, list, reports, noon())
	if v.Endpoint != "a/b/c" || v.Stale != "" {
		t.Errorf("the view is of %q, stale %q", v.Endpoint, v.Stale)
	}
	if want := []discovery.InstanceID{1, 2, 3, 4, 5, 7, 8, 9}; !slices.Equal(v.Source, want) {
		t.Errorf("instance_source is %v, want %v", v.Source, want)
	}
	if want := []discovery.InstanceID{1, 3, 7}; !slices.Equal(v.Avail, want) {
		t.Errorf("instance_avail is %v, want %v", v.Avail, want)
	}
	var got []string
	for _, r := range v.Rows {
		text := r.Name + " " + map[bool]string{true: "source ", false: ""}[r.Source] + map[bool]string{true: "avail ", false: ""}[r.Avail]
		if r.Reported != nil {
			text += "though " + r.Reported.Reporter
		}
		if r.Down != nil {
			text += r.Down.Reporter
			for _, other := range r.Down.Others {
				text += ">" + other.Reporter
			}
		}
		got = append(got, strings.TrimSpace(text))
	}
	want := []string{
		"r1", "cut off source avail though r1", "down source r1", "foreign source", "newer source", "restarted source avail",
		"sound source avail", "twice source r2>r1>r3", "unreachable source r1>r2",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the rows are %q, want %q", got, want)
	}
}

// TestReportsEndByThisClock: a store may be late, or away.
func TestReportsEndByThisClock(t *testing.T) {
	list := discovery.Instances{List: []discovery.Instance{listed(1, "a", ""), listed(2, "b", "")}}
	reports := discovery.Reports{List: []discovery.Report{reported(1, "", "r", 0), reported(2, "", "r", time.Millisecond)}}
	v := newInstancesView(discovery.Endpoint{}, list, reports, noon())
	if want := []discovery.InstanceID{1}; !slices.Equal(v.Avail, want) {
		t.Errorf("avail is %v, want %v", v.Avail, want)
	}
	if want := noon().Add(time.Millisecond); !v.nextReturn().Equal(want) {
		t.Errorf("the next returns at %v, want %v", v.nextReturn(), want)
	}
	if later := newInstancesView(discovery.Endpoint{}, list, reports, v.nextReturn()); len(later.Avail) != 2 || !later.nextReturn().IsZero() {
		t.Errorf("then avail is %v, and one returns at %v", later.Avail, later.nextReturn())
	}
}

// TestViewSaysWhatIsStale: either of the two sets may be.
func TestViewSaysWhatIsStale(t *testing.T) {
	away := errors.New("store away")
	for _, test := range []struct {
		list, reports error
		want          string
	}{
		{nil, nil, ""}, {away, nil, "store away"}, {away, away, "store away"}, {nil, away, "down reports: store away"},
	} {
		v := newInstancesView(discovery.Endpoint{}, discovery.Instances{Stale: test.list}, discovery.Reports{Stale: test.reports}, noon())
		if v.Stale != test.want {
			t.Errorf("the view is stale for %q, want %q", v.Stale, test.want)
		}
	}
}

// TestViewJSON holds the JSON against one that was looked at.
func TestViewJSON(t *testing.T) {
	list := discovery.Instances{List: []discovery.Instance{listed(0x1f, "server1", "")}, Stale: errors.New("store away")}
	reports := discovery.Reports{List: []discovery.Report{reported(0x1f, "", "laptop-1", 4*time.Second)}}
	v := newInstancesView(discovery.Endpoint{Namespace: "a", Component: "b", Name: "c"}, list, reports, noon())
	ms := 1.5
	v.Rows[0].Probe = &probeResult{MS: &ms}
	const want = `{
  "endpoint": "a/b/c",
  "instance_source": [
    "1f"
  ],
  "instance_avail": [],
  "instances": [
    {
      "id": "1f",
      "name": "server1",
      "address": "127.0.0.1:1",
      "transport": "ndjson",
      "source": true,
      "avail": false,
      "down": {
        "kind": "failed",
        "reason": "it broke",
        "reporter": "laptop-1",
        "since": "2026-11-24T11:59:59Z",
        "until": "2026-11-24T12:00:04Z"
      },
      "probe": {
        "ms": 1.5
      }
    }
  ],
  "stale": "store away"
}
`
	if got := string(v.appendJSON(nil)); got != want {
		t.Errorf("the JSON is\n%s\nwant\n%s", got, want)
	}
}

// TestChanges goes from view to view.
func TestChanges(t *testing.T) {
	all := func(instances ...discovery.Instance) discovery.Instances { return discovery.Instances{List: instances} }
	some := func(reports ...discovery.Report) discovery.Reports { return discovery.Reports{List: reports} }
	away := func(set discovery.Instances) discovery.Instances {
		set.Stale = errors.New("store away")
		return set
	}
	a, b := listed(1, "a", "x"), listed(2, "b", "x")
	again := listed(1, "a", "y")
	var last *instancesView
	for i, step := range []struct {
		list    discovery.Instances
		reports discovery.Reports
		want    string
	}{
		{all(a, b), some(reported(2, "x", "r", time.Second)), "joined a, joined b, down b"},
		{all(a, b), some(reported(2, "x", "r", time.Second)), ""},
		{all(a, b), some(reported(2, "x", "r", time.Second), reported(2, "x", "s", 1500*time.Millisecond)), ""},
		{all(a, b), some(reported(2, "x", "s", 3*time.Second)), "down b"},
		{all(a, b), some(), "restored b"},
		{away(all(a, b)), some(), "stale"},
		{away(all(a, b)), some(), ""},
		{all(b), some(), "fresh, left a"},
		{all(b), some(reported(1, "x", "r", time.Second)), ""},
		{all(a, b), some(reported(1, "x", "r", time.Second)), "joined a, down a"},
		{all(again, b), some(reported(1, "x", "r", time.Second)), "left a, joined a"},
		{all(again, b), some(reported(1, "y", "r", time.Second)), "down a"},
		{all(again, b), some(unreachable(1, "y", "r", time.Second)), "reported a"},
		{all(again, b), some(unreachable(1, "y", "r", time.Second)), ""},
		{all(again, b), some(unreachable(1, "y", "r", time.Second), unreachable(1, "y", "s", time.Second)), "down a"},
		{all(again, b), some(), "restored a"},
		{all(again, b), some(unreachable(2, "x", "r", time.Second)), "reported b"},
		{all(again, b), some(), "restored b"},
		{all(b), some(reported(1, "y", "r", time.Second)), "left a"},
		{all(), some(), "left b"},
	} {
		next := newInstancesView(discovery.Endpoint{}, step.list, step.reports, noon())
		var got []string
		for _, c := range changes(last, next, noon()) {
			got = append(got, strings.TrimSpace(c.Type+" "+c.Name))
		}
		if text := strings.Join(got, ", "); text != step.want {
			t.Errorf("step %d brings %q, want %q", i, text, step.want)
		}
		last = &next
	}
}

// TestChangeLines holds the lines against ones that were looked at.
func TestChangeLines(t *testing.T) {
	tcp := listed(5, "", "")
	tcp.Transport = "tcp"
	v := newInstancesView(discovery.Endpoint{},
		discovery.Instances{List: []discovery.Instance{listed(1, "ev\nil", ""), tcp}, Stale: errors.New("store\x1b away")},
		discovery.Reports{List: []discovery.Report{reported(1, "", "laptop-1", 3500*time.Millisecond)}}, noon())
	var text, lines []string
	for _, c := range changes(nil, v, noon()) {
		text = append(text, c.text()[len("2026-11-24 12:00:00.000 "):])
		lines = append(lines, string(c.append(nil, true)))
	}
	if want := []string{
		`stale     store\x1b away`,
		`joined    -  5  127.0.0.1:1  transport tcp: listed, not routed to`,
		`joined    ev\nil  1  127.0.0.1:1`,
		`down      ev\nil  1  127.0.0.1:1  failed: it broke; reported by laptop-1, back in 4s`,
	}; !slices.Equal(text, want) {
		t.Errorf("the lines are\n%s\nwant\n%s", strings.Join(text, "\n"), strings.Join(want, "\n"))
	}
	if want := []string{
		`{"time":"2026-11-24T12:00:00Z","type":"stale","reason":"store\u001b away"}`,
		`{"time":"2026-11-24T12:00:00Z","type":"joined","id":"5","address":"127.0.0.1:1","transport":"tcp"}`,
		`{"time":"2026-11-24T12:00:00Z","type":"joined","id":"1","name":"ev\nil","address":"127.0.0.1:1","transport":"ndjson"}`,
		`{"time":"2026-11-24T12:00:00Z","type":"down","id":"1","name":"ev\nil","address":"127.0.0.1:1","transport":"ndjson","down":` +
			`{"kind":"failed","reason":"it broke","reporter":"laptop-1","since":"2026-11-24T11:59:59Z","until":"2026-11-24T12:00:03.5Z"}}`,
	}; !slices.Equal(lines, want) {
		t.Errorf("the lines are\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	for _, line := range lines {
		if !json.Valid([]byte(line)) {
			t.Errorf("%s is no JSON", line)
		}
	}
}

// TestFrame fits the live table into windows.
func TestFrame(t *testing.T) {
	v := instancesView{Endpoint: "a/b/c", Rows: mixed(), Stale: "store away"}
	v.Source, v.Avail = make([]discovery.InstanceID, 3), make([]discovery.InstanceID, 1)
	for height, want := range map[int]string{
		20: `
3 in source, 1 avail, 2 down, of a/b/c

ID              NAME     SOURCE  AVAIL  PROBE         WHY          BACK
66ac93a09cd1e   server1  yes     no     unresponsive  failed       in 4s
1b14f8d7a8771a  server2  yes     yes    0.8ms
4d2                      yes     no                   transport nats_tcp: liste…
77                       no      no                   unreachable  now

stale: store away
q leaves`,
		7: `
ID              NAME     SOURCE  AVAIL  PROBE         WHY          BACK
66ac93a09cd1e   server1  yes     no     unresponsive  failed       in 4s
1b14f8d7a8771a  server2  yes     yes    0.8ms
4d2                      yes     no                   transport nats_tcp: liste…
77                       no      no                   unreachable  now

stale: store away`,
		4: `
ID             NAME     SOURCE  AVAIL  PROBE         WHY     BACK
66ac93a09cd1e  server1  yes     no     unresponsive  failed  in 4s
4d2                     yes     no                   transport nats_tcp: listed…
… and 2 more`,
	} {
		if got := "\n" + strings.Join(v.frame(palette{}, 80, height, noon()), "\n"); got != want {
			t.Errorf("in %d lines the frame is%s\nwant%s", height, got, want)
		}
	}
	for height := 1; height < 20; height++ {
		lines := v.frame(palette{}, 40, height, noon())
		if len(lines) > height {
			t.Errorf("a frame for %d lines has %d", height, len(lines))
		}
		if height >= 2 && !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "ID ") }) {
			t.Errorf("a frame of %d lines has no table: %q", height, lines)
		}
	}
}
