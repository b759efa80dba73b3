//go:build unix

package cmd_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// metricsURL returns the URL at which a server says that its metrics are.
func metricsURL(t *testing.T, p *process) string {
	t.Helper()
	const served = `Serving metrics url=(\S+)`
	if err := p.await(p.stderr, served, 1); err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(served).FindStringSubmatch(p.stderr.String())[1]
}

// get returns what is at url.
func get(t *testing.T, url string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("getting it: %s, %v:\n%s", res.Status, err, body)
	}
	return string(body)
}

// figures returns the values of the server's own metrics, by name and label, but
// for the labels that all have; of the histogram, the count. What is 0 is left out.
func figures(t *testing.T, metrics string) map[string]float64 {
	t.Helper()
	form := regexp.MustCompile(`^migrate_server_(\w+){endpoint="dynamo/backend/generate",(?:\w+="(\w+)",)?server="server1"} (\S+)\n$`)
	got := make(map[string]float64)
	for line := range strings.Lines(metrics) {
		m := form.FindStringSubmatch(line)
		switch {
		case m != nil && !strings.HasSuffix(m[1], "_seconds_sum"):
			v, err := strconv.ParseFloat(m[3], 64)
			if err != nil {
				t.Fatal(err)
			}
			if v != 0 {
				got[strings.TrimSpace(m[1]+" "+m[2])] = v
			}
		case m == nil && strings.HasPrefix(line, "migrate_") && !strings.Contains(line, "_seconds_bucket{"):
			t.Errorf("what is %s", line)
		}
	}
	return got
}

// awaitFigures scrapes until the figures are those wanted.
func awaitFigures(t *testing.T, url string, want map[string]float64) {
	t.Helper()
	var got map[string]float64
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if got = figures(t, get(t, url)); maps.Equal(got, want) {
			return
		}
	}
	t.Fatalf("got %v, want %v", got, want)
}

// TestMetrics scrapes a server under real requests.
func TestMetrics(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	// The first request breaks, and a second concurrent one is refused.
	p := w.serve(t, "server1", "--failure-mode", "first", "--max-streams", "1", "--delay", "1ms",
		"--metrics-listen", ":0", "--drain-timeout", "1h")
	url := metricsURL(t, p)
	if !strings.HasPrefix(url, "http://127.0.0.1:") {
		t.Errorf("without a host the metrics are at %s", url)
	}
	want := map[string]float64{}
	awaitFigures(t, url, want)

	w.run(t, 3, nil, "migrate", "request", "hello") // there is no other server
	w.run(t, 0, nil, "migrate", "request", "hello")
	want["streams_total failed"] = 1
	want["streams_total completed"] = 1
	want["items_total"] = 7
	want["first_item_seconds_count"] = 2
	awaitFigures(t, url, want)

	long := w.start(t, nil, "migrate", "request", strings.Repeat("x", 1<<16))
	if err := long.await(long.stdout, `data: x`, 40); err != nil {
		t.Fatal(err)
	}
	w.run(t, 1, nil, "migrate", "request", "hello")
	if got := figures(t, get(t, url)); got["streams_in_flight"] != 1 || got["items_total"] < 7+32 || got["refusals_total overloaded"] != 1 {
		t.Errorf("while a stream runs: %v", got)
	}

	// Metrics are served until the server has drained.
	if err := p.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.await(p.stderr, "Draining: ", 1); err != nil {
		t.Fatal(err)
	}
	last := get(t, url)
	if got := figures(t, last); got["streams_in_flight"] != 1 {
		t.Errorf("while the server drains: %v", got)
	}
	for _, name := range []string{"go_goroutines ", "process_start_time_seconds "} {
		if !strings.Contains(last, "\n"+name) {
			t.Errorf("there is no %sin:\n%s", name, last)
		}
	}
	problems, err := promlint.New(strings.NewReader(last)).Lint()
	if len(problems) > 0 || err != nil {
		t.Errorf("promlint: %v, %v", problems, err)
	}
	if err := long.signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	w.ended(t, long, 130)
	w.ended(t, p, 0)
	if conn, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/metrics")); err == nil {
		conn.Close()
		t.Error("the metrics outlive the server")
	}
}

// TestMetricsAddress checks invalid addresses, and no address.
func TestMetricsAddress(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, address := range []string{"9464", "localhost", "localhost:http", "localhost:", "127.0.0.1:99999", "::1:9464"} {
		_, stderr := w.run(t, 2, nil, "migrate", "serve", "--metrics-listen", address)
		if !strings.Contains(stderr, `--metrics-listen: "`+address+`" is not of the form HOST:PORT`) {
			t.Errorf("%s: %s", address, stderr)
		}
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, stderr := w.run(t, 1, nil, "migrate", "serve", "--metrics-listen", taken.Addr().String())
	if !strings.Contains(stderr, "address already in use") || !strings.Contains(stderr, "--metrics-listen") {
		t.Error(stderr)
	}
	if p := w.serve(t, "server1"); strings.Contains(p.stderr.String(), "metrics") {
		t.Errorf("metrics are served without being asked for: %s", p.stderr)
	}
}
