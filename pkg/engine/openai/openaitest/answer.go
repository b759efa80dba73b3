package openaitest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"unicode"
)

// answering is one answer of a provider that behaves.
type answering struct {
	p         *Provider
	w         *Wire
	chat      bool
	tokens    []string // still to come
	prompt    int      // tokens
	given     int      // tokens
	limit     int      // tokens
	stops     []string
	text      string
	usage     bool // a last chunk with usage
	always    bool // usage in every chunk
	timings   bool
	progress  bool
	reasoning []string
}

// answer answers as an engine does; only the first tokens unless limit is
// negative. It reports whether more may follow.
func (p *Provider) answer(w *Wire, limit int) bool {
	a := &answering{p: p, w: w, chat: w.Request.Path == "/v1/chat/completions", limit: -1}
	if !a.read() {
		return false
	}
	w.begin()
	if a.chat && !a.event(`{"role":"assistant","content":""}`, "null") {
		return false
	}
	if a.progress && !w.send("data: "+`{"choices":[{"index":0,"delta":{"role":"assistant","content":null},"finish_reason":null}],"prompt_progress":{"total":9,"cache":0,"processed":9,"time_ms":1}}`+"\n\n") {
		return false
	}
	all := append(append([]string{}, a.reasoning...), a.tokens...)
	for i, token := range all {
		switch {
		case limit >= 0 && i >= limit:
			return true
		case a.limit >= 0 && a.given >= a.limit:
			return a.finish("length")
		case !w.wait(p.Pace):
			return false
		}
		a.given++
		if token == "" {
			continue
		}
		field := "content"
		if i < len(a.reasoning) {
			field = "reasoning_content"
			if p.OwnedBy == "vllm" || p.OwnedBy == "library" {
				field = "reasoning"
			}
		} else if before, stopped := a.stopped(token); stopped {
			if before != "" && !a.content("content", before) {
				return false
			}
			return a.finish("stop")
		}
		if !a.content(field, token) {
			return false
		}
	}
	if limit >= 0 {
		return true
	}
	for _, call := range p.Calls {
		a.given++
		if !a.event(call, "null") {
			return false
		}
	}
	if len(p.Calls) > 0 {
		return a.finish("tool_calls")
	}
	if a.limit >= 0 && a.given >= a.limit {
		return a.finish("length")
	}
	return a.finish("stop")
}

// read reads the request. It reports false if it was refused.
func (a *answering) read() bool {
	r := a.w.Request
	if name := unknownField(r.Body); a.p.Strict && name != "" {
		return a.refuse(http.StatusUnprocessableEntity, "extra fields not permitted: "+name)
	}
	a.prompt, a.tokens = 9, a.p.Tokens
	var options struct {
		Usage  bool `json:"include_usage"`
		Always bool `json:"continuous_usage_stats"`
	}
	if raw := r.Body["stream_options"]; raw != nil && json.Unmarshal(raw, &options) != nil {
		return a.refuse(http.StatusBadRequest, "stream_options")
	}
	knows := a.p.OwnedBy
	a.usage, a.always = options.Usage, options.Always && (knows == "vllm" || knows == "sglang")
	a.timings = r.Field("timings_per_token") == "true" && knows == "llamacpp"
	a.progress = r.Field("return_progress") == "true" && knows == "llamacpp"
	for _, name := range []string{"max_tokens", "max_completion_tokens"} {
		if n, err := strconv.Atoi(r.Field(name)); err == nil {
			a.limit = max(n, 1) // as llama.cpp does with 0
		}
	}
	if raw := r.Body["stop"]; raw != nil && json.Unmarshal(raw, &a.stops) != nil {
		var one string
		if json.Unmarshal(raw, &one) == nil {
			a.stops = []string{one}
		}
	}
	a.reasoning = a.p.Reasoning
	beginning := ""
	if a.chat {
		role, content := r.LastMessage()
		if role == "assistant" && r.Field("continue_final_message") == "true" &&
			(knows == "sglang" || r.Field("add_generation_prompt") == "false") {
			beginning, a.reasoning = content, nil
		}
	} else {
		var prompt string
		_ = json.Unmarshal(r.Body["prompt"], &prompt) // a list is answered from its beginning
		if _, after, ok := strings.Cut(prompt, "|"); ok {
			beginning = after
		}
	}
	a.tokens = a.behind(beginning)
	a.prompt += len(a.p.Tokens) - len(a.tokens)
	return true
}

// behind returns the tokens that follow a beginning of the answer, without the
// white space at its end, as templates trim it; all of them if it is none.
func (a *answering) behind(beginning string) []string {
	beginning = strings.TrimRightFunc(beginning, unicode.IsSpace)
	whole := ""
	for i, token := range a.p.Tokens {
		if strings.TrimRightFunc(whole, unicode.IsSpace) == beginning {
			return a.p.Tokens[i:]
		}
		whole += token
		if len(whole) > len(beginning) && strings.HasPrefix(whole, beginning) {
			// In the middle of a token: engines divide the rest as they like.
			return append([]string{whole[len(beginning):]}, a.p.Tokens[i+1:]...)
		}
	}
	if whole == beginning {
		return nil
	}
	return a.p.Tokens
}

func (a *answering) refuse(status int, message string) bool {
	body, _ := json.Marshal(map[string]any{"error": map[string]any{"message": message, "type": "invalid_request_error", "code": status}})
	Status(status, string(body))(a.w)
	return false
}

// stopped reports whether the text ends with that token in a stop string, and what
// of the token comes before it.
func (a *answering) stopped(token string) (before string, ok bool) {
	whole := a.text + token
	for _, s := range a.stops {
		if i := strings.Index(whole, s); i >= 0 {
			return whole[min(len(a.text), i):i], true
		}
	}
	a.text = whole
	return "", false
}

func (a *answering) content(field, text string) bool {
	raw, _ := json.Marshal(text)
	if !a.chat {
		return a.w.send(fmt.Sprintf(`data: {"id":"cmpl-1","object":"text_completion","created":1700000000,"model":"test-model","choices":[{"index":0,"text":%s,"logprobs":null,"finish_reason":null}]%s}`+"\n\n", raw, a.tells()))
	}
	return a.event(fmt.Sprintf(`{%q:%s}`, field, raw), "null")
}

// event sends a chunk of a chat.
func (a *answering) event(delta, finish string) bool {
	chunk := Chunk(delta, finish)
	return a.w.send("data: " + chunk[:len(chunk)-1] + a.tells() + "}\n\n")
}

// tells returns what a chunk says of the progress.
func (a *answering) tells() string {
	s := ""
	if a.always {
		s += `,"usage":` + a.used()
	}
	if a.timings {
		s += fmt.Sprintf(`,"timings":{"cache_n":2,"prompt_n":%d,"predicted_n":%d}`, a.prompt-2, a.given)
	}
	return s
}

func (a *answering) used() string {
	return fmt.Sprintf(`{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}`, a.prompt, a.prompt+a.given, a.given)
}

func (a *answering) finish(reason string) bool {
	finish := strconv.Quote(reason)
	var ok bool
	if a.chat {
		ok = a.event(`{}`, finish)
	} else {
		ok = a.w.send(fmt.Sprintf(`data: {"id":"cmpl-1","object":"text_completion","created":1700000000,"model":"test-model","choices":[{"index":0,"text":"","logprobs":null,"finish_reason":%s}]}`+"\n\n", finish))
	}
	if ok && a.usage {
		ok = a.w.send(`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"test-model","choices":[],"usage":` + a.used() + "}\n\n")
	}
	return ok && a.w.send("data: [DONE]\n\n")
}
