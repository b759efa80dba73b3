package gateway

import (
	"bufio"
	"bytes"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/request-migration/migrate/pkg/engine/openai"
)

// BenchmarkChunk passes an endless answer through a gateway, on loopback: a chunk an iteration.
// It measures engine and client, too; profile it to see the gateway alone.
func BenchmarkChunk(b *testing.B) {
	chunk := []byte(`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"main","choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}]}` + "\n\n")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	provider := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/models":
			_, _ = w.Write([]byte(`{"data":[{"id":"main","owned_by":"vllm"}]}`))
			return
		case "/health":
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for {
			if _, err := w.Write(chunk); err != nil {
				return
			}
			if http.NewResponseController(w).Flush() != nil {
				return
			}
		}
	})}
	go provider.Serve(l) //nolint:errcheck // until Close
	b.Cleanup(func() { _ = provider.Close() })
	e, err := openai.New(openai.Config{URL: "http://" + l.Addr().String()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(e.Close)
	url := gatewayOf(b, Config{}, map[string]*openai.Engine{"a": e})
	resp, err := http.Post(url+chatPath, "application/json", strings.NewReader(streamedChat))
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it has no end
	lines := bufio.NewScanner(resp.Body)
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; {
		if !lines.Scan() {
			b.Fatal(lines.Err())
		}
		if bytes.Contains(lines.Bytes(), []byte("token")) {
			n++
		}
	}
}
