package openai

import (
	"strings"
	"testing"

	. "github.com/request-migration/migrate/pkg/engine/openai/openaitest" //nolint:revive // a language of steps
)

func TestAlike(t *testing.T) {
	const chunk = `{"id":"1","choices":[{"index":0,"delta":{"content": " a\"b"},"finish_reason":null}]}`
	var l alike
	if _, _, ok := l.text(chunk); ok {
		t.Error("it knows a chunk before any was learnt")
	}
	l.learn(chunk, "content", rawMessage(`" a\"b"`))
	for data, want := range map[string]string{
		chunk: `" a\"b"`,
		strings.Replace(chunk, `" a\"b"`, `"é\u00e9"`, 1):                                `"é\u00e9"`,
		strings.Replace(chunk, `" a\"b"`, `"\\"`, 1):                                     `"\\"`,
		strings.Replace(chunk, `" a\"b"`, `"x"},"finish_reason":"stop","y":{"z":"x"`, 1): "", // more than text
		strings.Replace(chunk, `" a\"b"`, `"x`, 1):                                       "",
		strings.Replace(chunk, `" a\"b"`, `"\x"`, 1):                                     "",
		strings.Replace(chunk, `" a\"b"`, `""`, 1):                                       "",
		strings.Replace(chunk, `" a\"b"`, `null`, 1):                                     "",
		strings.Replace(chunk, `"id":"1"`, `"id":"2"`, 1):                                "",
		strings.Replace(chunk, `null`, `"stop"`, 1):                                      "",
		strings.Replace(chunk, `"index":0`, `"index":1`, 1):                              "",
		chunk + " ":          "",
		chunk[:len(chunk)-1]: "",
		"":                   "",
	} {
		got, tokens, ok := l.text(data)
		if ok != (want != "") || ok && (string(got) != want || tokens != -1) {
			t.Errorf("%s: %s, %d tokens, %v, want %s", data, got, tokens, ok, want)
		}
	}
	twice := `{"content":"a","choices":[{"delta":{"content":"a"}}]}`
	l.learn(twice, "content", rawMessage(`"a"`))
	if _, _, ok := l.text(twice); ok {
		t.Error("it is not sure which field holds the text")
	}
}

// Engines that count tokens in each chunk.
func TestAlikeCounts(t *testing.T) {
	for _, test := range []struct {
		chunk, next string
		tokens      int // in next; 0 if it is not alike
	}{
		{
			`{"choices":[{"index":0,"delta":{"content":"a"}}],"usage":{"prompt_tokens":9,"total_tokens":10,"completion_tokens":1}}`,
			`{"choices":[{"index":0,"delta":{"content":"b"}}],"usage":{"prompt_tokens":9,"total_tokens":21,"completion_tokens":12}}`, 12,
		},
		{
			`{"choices":[{"index":0,"delta":{"content":"a"}}],"usage":{"prompt_tokens":9,"total_tokens":10,"completion_tokens":1}}`,
			`{"choices":[{"index":7,"delta":{"content":"b"}}],"usage":{"prompt_tokens":9,"total_tokens":21,"completion_tokens":12}}`, 0,
		},
		{
			`{"choices":[{"delta":{"content":"a"}}],"created":17,"timings":{"cache_n":0,"predicted_n": 99,"predicted_ms":1.75,"who":"x\"1"},"n":3}`,
			`{"choices":[{"delta":{"content":"a"}}],"created":17,"timings":{"cache_n":0,"predicted_n": 101,"predicted_ms":1234.5,"who":"x\"1"},"n":3}`, 101,
		},
		{
			`{"choices":[{"delta":{"content":"a"}}],"created":17,"timings":{"predicted_n":99,"who":"x\"1"},"n":3}`,
			`{"choices":[{"delta":{"content":"a"}}],"created":17,"timings":{"predicted_n":99,"who":"x\"2"},"n":3}`, 0,
		},
		{
			`{"choices":[{"delta":{"content":"a"}}],"timings":{"predicted_n":99},"n":3}`,
			`{"choices":[{"delta":{"content":"a"}}],"timings":{"predicted_n":99},"n":4}`, 0,
		},
		{
			`{"choices":[{"delta":{"content":"a"}}],"usage":{"completion_tokens":1,"completion_tokens_details":{"reasoning_tokens":0}}}`,
			`{"choices":[{"delta":{"content":"a"}}],"usage":{"completion_tokens":2,"completion_tokens_details":{"reasoning_tokens":1}}}`, 2,
		},
		{
			`{"choices":[{"delta":{"content":"a"}}],"usage":{"completion_tokens":1}}`,
			`{"choices":[{"delta":{"content":"a"}}],"usage":{"completion_tokens":null}}`, 0,
		},
		{
			`{"choices":[{"delta":{"content":"a"}}],"usage":{"completion_tokens":1}}`,
			`{"choices":[{"delta":{"content":"a"}}],"usage":{"completion_tokens":99999999999999999999}}`, 0,
		},
		{
			`{"choices":[{"delta":{"content":"a"}}],"usage":{"completion_tokens":1},"timings":{"predicted_n":1}}`,
			`{"choices":[{"delta":{"content":"a"}}],"usage":{"completion_tokens":1},"timings":{"predicted_n":1}}`, 0,
		},
	} {
		var l alike
		l.learn(test.chunk, "content", rawMessage(`"a"`))
		if _, tokens, ok := l.text(test.next); ok != (test.tokens > 0) || ok && tokens != test.tokens {
			t.Errorf("behind %s\n%s: %d tokens, %v, want %d", test.chunk, test.next, tokens, ok, test.tokens)
		}
	}
}

// What comes between chunks that are alike is not missed.
func TestAlikeBetween(t *testing.T) {
	p := &Provider{OwnedBy: "other", Misbehave: misbehave(0,
		Content("a", "b", "c"), Events(Chunk(`{"content":"d","refusal":"no"}`, "null")), Content("e"), Events(Chunk(`{"content":"f"}`, `"stop"`)), Events("[DONE]"))}
	got := ask(t, newEngine(t, p, Config{}), chat(""))
	got.check(t, "end", "")
	if text, _ := got.text(); text != "abcdef" {
		t.Errorf("the text is %q", text)
	}
	chunks := 0
	for _, item := range got.items {
		if item.Event == EventChunk {
			chunks++
		}
	}
	if chunks != 2 {
		t.Errorf("there are %d chunks, want the refusal and the finish:\n%s", chunks, got)
	}
}
