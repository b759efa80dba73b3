package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// openAI is the protocol of the sides that stand between an OpenAI client and
// its engines.
const openAI = "OpenAI"

// chatModel is the model that the engines have, and chatKey the key that clients
// send. LiteLLM starts with none but a key.
const (
	chatModel = "bench"
	chatKey   = "sk-bench"
)

// chatServer is an engine, which says it is vLLM: it counts tokens in each chunk
// if it is asked to, and goes on behind an answer that another has begun.
type chatServer struct {
	http.Server
	l net.Listener
}

func newChatServer(b *backend, l net.Listener) *chatServer {
	s := &chatServer{l: l}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"object":"list","data":[{"id":%q,"object":"model","created":1700000000,"owned_by":"vllm"}]}`, chatModel)
	})
	mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) { answerChat(b, w, r) })
	s.Handler = mux
	return s
}

func (s *chatServer) serve() error {
	if err := s.Serve(s.l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (s *chatServer) close() { s.Close() }

func answerChat(b *backend, w http.ResponseWriter, r *http.Request) {
	var q struct {
		Messages []struct {
			Role    string
			Content json.RawMessage
		}
		StreamOptions struct {
			Each bool `json:"continuous_usage_stats"`
		} `json:"stream_options"`
	}
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil || len(q.Messages) == 0 {
		http.Error(w, "no messages", http.StatusBadRequest)
		return
	}
	a, err := parseAsk(contentOf(q.Messages[0].Content))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if q.Messages[len(q.Messages)-1].Role == "assistant" {
		a.from = 1 // where every break is
	}
	w.Header().Set("Content-Type", "text/event-stream")
	out := &chatSink{w: w, out: http.NewResponseController(w), text1: text(b.name), counts: q.StreamOptions.Each}
	if b.answer(r.Context(), a, out) != nil {
		panic(http.ErrAbortHandler) // nobody may take it for whole
	}
	out.event(`{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"` + chatModel + `","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}`)
	out.event("[DONE]")
}

// contentOf returns the text of a message, which some clients send in parts.
func contentOf(raw json.RawMessage) string {
	var whole string
	if json.Unmarshal(raw, &whole) == nil {
		return whole
	}
	var parts []struct{ Text string }
	if json.Unmarshal(raw, &parts) == nil && len(parts) > 0 {
		return parts[0].Text
	}
	return ""
}

// chatSink sends items as chunks.
type chatSink struct {
	w      http.ResponseWriter
	out    *http.ResponseController
	text1  string
	counts bool // each chunk has the usage so far
	tokens int
	buf    []byte
}

func (s *chatSink) plain() error { return s.text(s.text1) }

func (s *chatSink) text(t string) error {
	s.tokens++
	b := append(s.buf[:0], `{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"`+chatModel+`","choices":[{"index":0,"delta":{"content":"`...)
	b = append(append(b, t...), `"},"logprobs":null,"finish_reason":null}]`...)
	if s.counts {
		b = strconv.AppendInt(append(b, `,"usage":{"prompt_tokens":9,"total_tokens":`...), int64(9+s.tokens), 10)
		b = append(strconv.AppendInt(append(b, `,"completion_tokens":`...), int64(s.tokens), 10), '}')
	}
	s.buf = append(b, '}')
	return s.event(string(s.buf))
}

func (s *chatSink) event(data string) error {
	if _, err := fmt.Fprintf(s.w, "data: %s\n\n", data); err != nil {
		return err
	}
	return s.out.Flush()
}

// chatCaller is an OpenAI client that takes out of each chunk only its text.
type chatCaller struct {
	url  string
	http http.Client
}

func newChatCaller(addr string) *chatCaller {
	return &chatCaller{url: "http://" + addr, http: http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2000}}}
}

func (c *chatCaller) stream(ctx context.Context, a ask, each func(int, item)) error {
	body := fmt.Sprintf(`{"model":%q,"stream":true,"messages":[{"role":"user","content":%q}]}`, chatModel, a)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+chatKey)
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", resp.Status)
	}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		switch {
		case !ok:
			continue
		case string(data) == "[DONE]":
			return nil
		}
		if t := chunkText(data); t != "" {
			each(1, item{text: t})
		}
	}
	return errors.Join(errors.New("the answer has no end"), lines.Err())
}

func (c *chatCaller) close() error {
	c.http.CloseIdleConnections()
	return nil
}

// chunkText returns the text of a chunk, which has no escapes.
func chunkText(data []byte) string {
	_, rest, _ := bytes.Cut(data, []byte(`"content":`))
	rest = bytes.TrimLeft(rest, " ")
	if len(rest) == 0 || rest[0] != '"' {
		return ""
	}
	t, _, _ := bytes.Cut(rest[1:], []byte(`"`))
	return string(t)
}
