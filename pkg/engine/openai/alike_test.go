package openai

import (
	"strings"
	"testing"

	. "github.com/request-migration/migrate/pkg/engine/openai/openaitest" //nolint:revive // a language of steps
)

func TestAlike(t *testing.T) {
	const chunk = `{"id":"1","choices":[{"index":0,"delta":{"content": " a\"b"},"finish_reason":null}]}`
	var l alike
	if _, ok := l.text(chunk); ok {
		t.Error("it knows a chunk before any was learnt")
	}
	l.learn(chunk, "content", rawMessage(`" a\"b"`))
	for data, want := range map[string]string{
		chunk: `" a\"b"`,
		strings.Replace(chunk, `" a\"b"`, `"é\u00e9"`, 1):                                `"é\u00e9"`,
		strings.Replace(chunk, `" a\"b"`, `"x"},"finish_reason":"stop","y":{"z":"x"`, 1): "", // more than text
		strings.Replace(chunk, `" a\"b"`, `"x`, 1):                                       "",
		strings.Replace(chunk, `" a\"b"`, `""`, 1):                                       "",
		strings.Replace(chunk, `" a\"b"`, `null`, 1):                                     "",
		strings.Replace(chunk, `"id":"1"`, `"id":"2"`, 1):                                "",
		strings.Replace(chunk, `null`, `"stop"`, 1):                                      "",
		"": "",
	} {
		got, ok := l.text(data)
		if ok != (want != "") || ok && string(got) != want {
			t.Errorf("%s: %s, %v, want %s", data, got, ok, want)
		}
	}
	twice := `{"content":"a","choices":[{"delta":{"content":"a"}}]}`
	l.learn(twice, "content", rawMessage(`"a"`))
	if _, ok := l.text(twice); ok {
		t.Error("it is not sure which field holds the text")
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
