package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/engine/openai"
	. "github.com/request-migration/migrate/pkg/engine/openai/openaitest" //nolint:revive // a language of steps
	"github.com/request-migration/migrate/pkg/stream/streamtest"
)

// Unknown models, bodies that are none, and paths that are not there are told in OpenAI's form.
func TestMistakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, Config{MaxBody: 1000, Aliases: map[string]string{"gpt": "main"}}, mainly(&Provider{}))
		for _, test := range []struct {
			path, body string
			status     int
			code, says string
		}{
			{chatPath, `{"model":"nobody's","messages":[]}`, 404, "model_not_found", "served are main"},
			{chatPath, `{"messages":[]}`, 400, "no_model", `no \"model\"`},
			{chatPath, `[]`, 400, "invalid_json", "no JSON object"},
			{chatPath, `{"model":"main","x":"` + strings.Repeat("x", 1000) + `"}`, 413, "request_too_large", "1000 bytes"},
			{"/v1/images/generations", `{}`, 404, "unknown_url", "/v1/chat/completions"},
			{"/v1/responses", `{"model":"main","previous_response_id":"r1"}`, 0, "", ""},
		} {
			g := b.ask(test.path, test.body)
			if test.status == 0 {
				continue // with one instance it is the engine's to know
			}
			var answer struct {
				Error struct{ Message, Type, Code string }
			}
			if err := json.Unmarshal([]byte(g.body), &answer); err != nil || g.status != test.status ||
				answer.Error.Code != test.code || !strings.Contains(g.body, test.says) || answer.Error.Type == "" {
				t.Errorf("%s %.60s: status %d: %s", test.path, test.body, g.status, g.body)
			}
		}
		if g := b.ask(chatPath, strings.Replace(wholeChat, "main", "gpt", 1)); g.status != 200 || g.header.Get("X-Migrate-Instance") != "a" {
			t.Errorf("by its alias: status %d, %v", g.status, g.header)
		}
	})
}

// A request that comes before the engines were asked waits for them.
func TestAskedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := mainly(&Provider{Health: func(ctx context.Context) int {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
			return http.StatusOK
		}})
		b := startBed(t, Config{}, slow)
		b.ask(chatPath, streamedChat).isWhole(t)
		if g := b.ask(chatPath, strings.Replace(streamedChat, "main", "other", 1)); g.status != http.StatusNotFound || g.took > settling {
			t.Errorf("a model that nobody has: status %d after %v", g.status, g.took)
		}
	})
}

// What refers to something that an engine keeps cannot be asked while there are several engines.
func TestKeptByAnEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, Config{}, mainly(&Provider{}), second(&Provider{}))
		for _, more := range []string{`"previous_response_id":"r1"`, `"conversation":"c1"`, `"background":true`} {
			if g := b.ask("/v1/responses", `{"model":"main","input":"x",`+more+`}`); g.status != 400 || !strings.Contains(g.body, "several") {
				t.Errorf("%s: status %d: %s", more, g.status, g.body)
			}
		}
	})
}

// A model that was listed once stays known: without an instance it is 503, and never 404.
func TestKnownModelWithoutInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, Config{WaitRestore: -1}, mainly(&Provider{}))
		b.providers["a"].Stop()
		time.Sleep(10 * time.Second)
		g := b.ask(chatPath, streamedChat)
		if g.status != http.StatusServiceUnavailable || g.header.Get("Retry-After") == "" || g.header.Get("X-Should-Retry") != "false" {
			t.Errorf("status %d, %v: %s", g.status, g.header, g.body)
		}
		if !strings.Contains(g.body, "no instances found for model main") || strings.Contains(g.body, "endpoint") {
			t.Errorf("the client is told %s", g.body)
		}
		w := httptest.NewRecorder()
		b.g.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", http.NoBody))
		if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "no model has an instance") {
			t.Errorf("/readyz: %d %s", w.Code, w.Body)
		}
	})
}

// With AnyModel a model that nobody lists is asked for as it is called, and so many names are
// remembered.
func TestAnyModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, Config{AnyModel: true}, mainly(&Provider{OwnedBy: "hosted"}))
		for n := range maxAnyModels + 2 {
			name := fmt.Sprintf("other-%d", n)
			g := b.ask(chatPath, strings.Replace(wholeChat, "main", name, 1))
			if n >= maxAnyModels {
				if g.status != http.StatusNotFound {
					t.Errorf("%s: status %d", name, g.status)
				}
				continue
			}
			if text, _, _ := g.messageOf(t); g.status != http.StatusOK || text != strings.Join(words(60), "") {
				t.Fatalf("%s: status %d: %s", name, g.status, g.body)
			}
		}
		asked := b.providers["a"].Requests()
		if last := asked[len(asked)-1].Field("model"); last != fmt.Sprintf(`"other-%d"`, maxAnyModels-1) {
			t.Errorf("the engine was asked for %s", last)
		}
		if g := b.ask(chatPath, wholeChat); g.status != http.StatusOK {
			t.Errorf("a listed one: status %d: %s", g.status, g.body)
		}
	})
}

// The page says why an engine has no instance.
func TestStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, Config{}, mainly(&Provider{}), second(&Provider{}))
		status := func() (models []modelStatus, out []engineStatus) {
			w := httptest.NewRecorder()
			b.g.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/status", http.NoBody))
			var s struct {
				Models []modelStatus  `json:"models"`
				Out    []engineStatus `json:"engines_out"`
			}
			if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil {
				t.Fatalf("%v: %s", err, w.Body)
			}
			return s.Models, s.Out
		}
		if models, out := status(); len(models) != 1 || len(models[0].Instances) != 2 || len(out) != 0 {
			t.Errorf("at first: %+v, %+v", models, out)
		}
		b.providers["b"].Stop()
		time.Sleep(5 * time.Second)
		if models, out := status(); len(models) != 1 || len(models[0].Instances) != 1 || len(out) != 1 || out[0].Name != "b" || !strings.Contains(out[0].Why, "connection refused") {
			t.Errorf("while b is gone: %+v, %+v", models, out)
		}
		if err := b.providers["b"].Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if models, out := status(); len(models[0].Instances) != 2 || len(out) != 0 {
			t.Errorf("when b is back: %+v, %+v", models, out)
		}
	})
}

// A client that waits is kept waiting by pings, after which a failure is an error in the stream.
func TestPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := mainly(&Provider{Misbehave: always(0, func(w *Wire) bool { time.Sleep(50 * time.Second); return true }, Content(words(60)...), Finish("length"))})
		slow.cfg.FirstItemTimeout, slow.cfg.ItemTimeout = time.Minute, time.Minute
		b := newBed(t, Config{}, slow)
		s := b.ask(chatPath, streamedChat).read(t)
		if strings.Join(s.comments, " ") != "ping ping ping" || s.text != strings.Join(words(60), "") || !s.done {
			t.Errorf("comments %q, text %q", s.comments, s.text)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		dead := mainly(&Provider{Misbehave: always(0, Hang())})
		dead.cfg.FirstItemTimeout, dead.cfg.ItemTimeout = 20*time.Second, 20*time.Second
		b := newBed(t, Config{WaitRestore: -1}, dead)
		g := b.ask(chatPath, streamedChat)
		if s := g.read(t); g.status != 200 || !g.aborted || s.done || !strings.HasPrefix(s.err, "engine_silent: ") {
			t.Errorf("status %d, aborted %v, error %q", g.status, g.aborted, s.err)
		}
	})
}

// A client that leaves cancels the engine's work.
func TestClientLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, Config{}, mainly(&Provider{Pace: time.Second}))
		ctx, leave := context.WithTimeout(t.Context(), 3500*time.Millisecond)
		defer leave()
		b.askUntil(ctx, chatPath, streamedChat)
		time.Sleep(time.Second)
		if n := b.providers["a"].Gone(); n != 1 {
			t.Errorf("%d requests were given up at the engine, want 1", n)
		}
		if e := b.last(); e.Status != 499 {
			t.Errorf("the entry is %+v", e)
		}
	})
}

// A client that stops reading holds up its own answer alone, and is given up after a minute.
func TestClientStopsReading(t *testing.T) {
	const chunk = 10_000 // bytes
	for _, streamed := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			chunks := Content(slices.Repeat([]string{strings.Repeat("x", chunk)}, 100)...)
			long := mainly(&Provider{Misbehave: always(0, func(w *Wire) bool {
				for streamed && chunks(w) {
				}
				return chunks(w)
			}, Finish("stop"))})
			second := second(&Provider{Tokens: words(60)})
			second.Models = []string{"other"}
			b := newBed(t, Config{}, long, second)
			var network streamtest.Network
			server := &http.Server{Handler: b.g}
			l := network.Listen("gateway:1")
			var serving sync.WaitGroup
			serving.Go(func() { _ = server.Serve(l) }) // until it is closed
			defer serving.Wait()
			defer server.Close() //nolint:errcheck // its connection is none
			conn, err := network.Dial(t.Context(), "gateway:1")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			question := wholeChat
			if streamed {
				question = streamedChat
			}
			began := time.Now()
			if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: gateway\r\nContent-Length: %d\r\n\r\n%s", chatPath, len(question), question); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
			b.ask(chatPath, strings.Replace(streamedChat, "main", "other", 1)).isWhole(t)
			if n := b.providers["a"].Gone(); n != 0 {
				t.Errorf("after 10 s %d requests were given up", n)
			}
			time.Sleep(writeTimeout)
			if n := b.providers["a"].Gone(); streamed && n != 1 {
				t.Errorf("after %v %d requests were given up at the engine, want 1", time.Since(began), n)
			}
			if e := b.last(); streamed && (e.TokensOut == 0 || e.TokensOut > 100) {
				t.Errorf("%d chunks were taken for a client that does not read", e.TokensOut)
			}
			if got, err := io.ReadAll(conn); len(got) >= 100*chunk {
				t.Errorf("the client was not given up: it gets %d bytes, %v", len(got), err)
			}
		})
	}
}

// A gateway that leaves takes requests for 5 s more, and ends what runs with an error.
func TestLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, Config{}, mainly(&Provider{Pace: time.Second}))
		running := make(chan got, 1)
		go func() { running <- b.ask(chatPath, streamedChat) }()
		time.Sleep(time.Second)
		b.g.Leave()
		w := httptest.NewRecorder()
		b.g.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", http.NoBody))
		if w.Code != http.StatusServiceUnavailable {
			t.Errorf("/readyz is %d", w.Code)
		}
		time.Sleep(StillTaken)
		if g := b.ask(chatPath, streamedChat); g.status != http.StatusServiceUnavailable || g.header.Get("Connection") != "close" {
			t.Errorf("later: status %d, %v", g.status, g.header)
		}
		b.g.Close()
		g := <-running
		if s := g.read(t); !g.aborted || s.done || !strings.HasPrefix(s.err, "shutting_down: ") || s.text == "" {
			t.Errorf("aborted %v, error %q, text %q", g.aborted, s.err, s.text)
		}
	})
}

// A key is needed if there are keys; a page elsewhere may not ask.
func TestKeysAndOrigins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, Config{Keys: []Key{{"ann", "secret-a"}, {"bob", "secret-b"}}, Origins: []string{"https://good.example"}}, mainly(&Provider{}))
		for _, test := range []struct {
			headers string
			status  int
		}{
			{"", 401}, {"Authorization=Bearer wrong", 401}, {"Authorization=Bearer ", 401}, {"Authorization=secret-a", 401},
			{"Authorization=Bearer secret-a", 200}, {"X-Api-Key=secret-b", 200},
			{"Authorization=Bearer secret-a|Origin=https://bad.example", 403},
			{"Authorization=Bearer secret-a|Origin=https://good.example", 200},
			{"Origin=https://good.example", 401},
			{"Authorization=Bearer secret-a|Origin=null", 403},
			{"Authorization=Bearer secret-a|Origin=http://example.com", 200}, // the request's own host
		} {
			var headers []string
			for h := range strings.SplitSeq(test.headers, "|") {
				if name, value, ok := strings.Cut(h, "="); ok {
					headers = append(headers, name, value)
				}
			}
			if g := b.ask(chatPath, wholeChat, headers...); g.status != test.status {
				t.Errorf("%s: status %d, want %d: %s", test.headers, g.status, test.status, g.body)
			}
		}
		for _, r := range b.providers["a"].Requests() {
			for name, values := range r.Header {
				if strings.Contains(strings.Join(values, ""), "secret") {
					t.Errorf("the engine got the client's key in %s", name)
				}
			}
		}
		if e := b.last(); e.Key != "ann" {
			t.Errorf("the entry is %+v", e)
		}
	})
}

// On a loopback address a page's name must be this machine's, because another name may be made
// to point here.
func TestRebinding(t *testing.T) {
	url := onLoopback(t, Config{}, &Provider{OwnedBy: "vllm", Models: []string{"main"}, Tokens: words(3)})
	host := strings.TrimPrefix(url, "http://")
	for _, test := range []struct {
		host, origin string
		status       int
	}{
		{host, "http://" + host, 200}, {"localhost:" + port(host), "http://localhost:" + port(host), 200},
		{"evil.example:" + port(host), "http://evil.example:" + port(host), 403}, {host, "http://evil.example", 403},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+chatPath, strings.NewReader(wholeChat))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = test.host
		req.Header.Set("Origin", test.origin)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close() // it was read
		if resp.StatusCode != test.status {
			t.Errorf("from %s at %s: %d, want %d", test.origin, test.host, resp.StatusCode, test.status)
		}
	}
}

func port(hostPort string) string { return hostPort[strings.LastIndexByte(hostPort, ':')+1:] }

// onLoopback is a gateway on a real address, in front of real ones.
func onLoopback(t *testing.T, cfg Config, providers ...*Provider) (url string) {
	t.Helper()
	engines := map[string]*openai.Engine{}
	for n, p := range providers {
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Stop)
		e, err := openai.New(openai.Config{URL: p.URL(), ItemTimeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(e.Close)
		engines[fmt.Sprintf("engine%d", n)] = e
	}
	return gatewayOf(t, cfg, engines)
}

// gatewayOf starts a gateway on loopback, and returns its address.
func gatewayOf(tb testing.TB, cfg Config, engines map[string]*openai.Engine) (url string) {
	tb.Helper()
	all := NewEngines("test", engines, nil)
	tb.Cleanup(all.Close)
	cfg.Engines = all
	g := New(cfg)
	tb.Cleanup(g.Close)
	server := httptest.NewServer(g)
	tb.Cleanup(server.Close)
	<-all.known
	for end := time.Now().Add(time.Minute); ; {
		resp, err := http.Get(server.URL + "/readyz")
		if err != nil {
			tb.Fatal(err)
		}
		_ = resp.Body.Close() // it is not read
		if resp.StatusCode == http.StatusOK {
			return server.URL
		}
		if time.Now().After(end) {
			tb.Fatal("the gateway is not ready after a minute")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Streams over ten providers of which one is killed every so often: every answer is whole, or
// a proper error, and nothing is left of them. It is 200 streams and 15 kills, or if
// GATEWAY_CHURN is set 1,000 streams and a kill a second for a minute.
func TestManyStreams(t *testing.T) {
	streams, kills, every, pace := 200, 15, 200*time.Millisecond, 10*time.Millisecond
	if os.Getenv("GATEWAY_CHURN") != "" {
		streams, kills, every, pace = 1000, 60, time.Second, 250*time.Millisecond
	}
	providers := make([]*Provider, 10)
	for n := range providers {
		providers[n] = &Provider{OwnedBy: "vllm", Models: []string{"main"}, Tokens: words(60), Pace: pace}
	}
	url := onLoopback(t, Config{Attempts: 20}, providers...)
	before, heapBefore := runtime.NumGoroutine(), heap()
	ctx, enough := context.WithCancel(t.Context())
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: streams}}
	var callers sync.WaitGroup
	var mu sync.Mutex
	whole, failed, migrated := 0, 0, 0
	for range streams {
		callers.Go(func() {
			for n := 0; n == 0 || ctx.Err() == nil; n++ {
				status, body, err := post(t, client, url)
				if status == http.StatusServiceUnavailable && err == nil && strings.Contains(body, `"code":"no_instances"`) {
					mu.Lock()
					failed++ // all are out, and nothing was delivered
					mu.Unlock()
					continue
				}
				s := got{status: status, body: body}.read(t)
				mu.Lock()
				migrated += len(s.comments)
				switch {
				case s.done && err == nil && s.text == strings.Join(words(60), "") && s.usage == "9/60/69" && len(s.ids) == 1:
					whole++
				case !s.done && s.err != "" && err != nil:
					failed++
				default:
					t.Errorf("[DONE] %v, error %q, %v, usage %s, text %q", s.done, s.err, err, s.usage, s.text)
				}
				mu.Unlock()
			}
		})
	}
	for n := range kills {
		time.Sleep(every)
		p := providers[n%len(providers)]
		p.Stop()
		if err := p.Start(); err != nil {
			t.Error(err)
		}
	}
	enough()
	callers.Wait()
	client.CloseIdleConnections()
	t.Logf("%d whole answers, %d proper errors, %d migrations", whole, failed, migrated)
	if migrated == 0 {
		t.Error("nothing migrated")
	}
	end := time.Now().Add(time.Minute)
	for runtime.NumGoroutine() > before+20 {
		if time.Now().After(end) {
			var stacks bytes.Buffer
			buf := make([]byte, 1<<16)
			stacks.Write(buf[:runtime.Stack(buf, true)])
			t.Fatalf("%d goroutines are left, before there were %d:\n%s", runtime.NumGoroutine(), before, &stacks)
		}
		time.Sleep(50 * time.Millisecond)
	}
	for _, p := range providers {
		p.Forget()
	}
	t.Logf("goroutines %d, before %d; heap %d kB, before %d kB", runtime.NumGoroutine(), before, heap()>>10, heapBefore>>10)
	if left := int64(heap()) - int64(heapBefore); left > 8<<20 {
		t.Errorf("%d bytes are left", left)
	}
	resp, err := http.Get(url + "/status")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	var status struct{ Running int }
	if err := json.NewDecoder(resp.Body).Decode(&status); err != nil || status.Running > 0 {
		t.Errorf("%d requests are said to run, %v", status.Running, err)
	}
}

// heap returns how many bytes are in use.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // what pools held at the first is free at the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// post makes a streamed request and reads what comes.
func post(t *testing.T, client *http.Client, url string) (status int, body string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+chatPath, strings.NewReader(streamedChat))
	if err != nil {
		return 0, "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// A path whose answer passes as it is: whole, event by event, and broken in the middle.
func TestPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := "event: message_start\ndata: {\"type\":\"message_start\"}\n\nevent: content\ndata: {\"a\":\"" + strings.Repeat("x", 300<<10) + "\"}\n\n"
		answer := func(r Request) (int, []Step) {
			switch r.Field("how") {
			case `"whole"`:
				return 0, []Step{Status(200, `{"data":[1,2]}`)}
			case `"cut"`:
				return 0, []Step{Raw(events), Cut()}
			}
			return 0, []Step{Raw(events)}
		}
		b := newBed(t, Config{WaitRestore: -1}, mainly(&Provider{Misbehave: answer}))
		if g := b.ask("/v1/embeddings", `{"model":"main","how":"whole","input":"x"}`); g.status != 200 || g.body != `{"data":[1,2]}` {
			t.Errorf("whole: status %d: %s", g.status, g.body)
		}
		if g := b.ask(messagesPath, `{"model":"main","stream":true}`); g.status != 200 || g.body != events {
			t.Errorf("event by event: status %d: %.200s", g.status, g.body)
		}
		g := b.ask(messagesPath, `{"model":"main","stream":true,"how":"cut"}`)
		rest, ok := strings.CutPrefix(g.body, events)
		if !ok || !g.aborted || !strings.HasPrefix(rest, "event: error\ndata: {\"error\":{\"message\":") {
			t.Errorf("cut: aborted %v, behind the events there is %.300q", g.aborted, rest)
		}
	})
}
