package openai

import (
	"maps"
	"slices"
	"strings"

	"github.com/request-migration/migrate/pkg/internal/rawjson"
	"github.com/request-migration/migrate/pkg/stream"
)

// continuing reports whether the request goes on behind delivered text.
func (c *call) continuing() bool { return c.so.text != "" && !c.anew() }

// anew reports whether the original request is asked: nothing went out but a
// head, reasoning and white space.
func (c *call) anew() bool { return len(c.so.text) == len(c.so.blanks) }

// cannotContinue returns why the answer so far can't be carried on at this
// engine; nil if it can.
func (c *call) cannotContinue() error {
	no := func(reason string) error {
		return refuse(stream.ErrUnresumable, "cannot go on behind what was delivered: %s", reason)
	}
	switch {
	case c.so.reason != "":
		return no(c.so.reason)
	case !c.so.began && c.so.reasoning == "":
		return nil
	case !c.so.began && c.e.cfg.Reasoning == ReasoningFail:
		return no("only reasoning was, and such a request is to fail")
	case !c.so.began:
		return nil
	}
	if reason := c.q.notContinued(); reason != "" {
		return no(reason)
	}
	if !c.anew() && !c.q.kind.resumes() && !c.e.cfg.ResumeByPrefix {
		return no("an engine of type " + string(c.q.kind) + " is not known to continue an answer")
	}
	return nil
}

// notContinued returns what in a request keeps its answer from being continued;
// "" if nothing does.
func (q *question) notContinued() string {
	if n, ok := q.body.Int("n"); ok && n > 1 {
		return "n is above 1"
	}
	if logprobs := q.body["logprobs"]; !rawjson.IsNull(logprobs) && string(logprobs) != "false" {
		return "the request wants logprobs"
	}
	if format := q.body.Sub("response_format"); format != nil && format.Str("type") != "text" {
		return "the request has a response format"
	}
	for _, grammar := range []string{
		"grammar", "json_schema", "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar",
		"guided_decoding_backend", "regex", "ebnf", "structural_tag",
	} {
		if q.body.Has(grammar) {
			return "the request has a grammar (" + grammar + ")"
		}
	}
	if q.path == completionsPath {
		if !rawjson.IsString(q.body["prompt"]) {
			return "the prompt is not one text"
		}
		if q.body.Yes("echo") {
			return "the request wants its prompt echoed"
		}
		if !rawjson.IsNothing(q.body["suffix"]) {
			return "the request has a suffix"
		}
	}
	if n, ok := q.body.Int("best_of"); ok && n > 1 {
		return "best_of is above 1"
	}
	return ""
}

// continued returns the body that makes the engine go on behind the text so far,
// without the white space at its end: templates trim it, and the engine writes it
// again. reasoning says whether the reasoning so far is sent along.
func (c *call) continued(reasoning bool) (object, error) {
	body := c.original()
	text := strings.TrimSuffix(c.so.text, c.so.blanks)
	if c.q.path == completionsPath {
		body["prompt"] = appendText(body["prompt"], text)
		return body, nil
	}
	messages := body.List("messages")
	message := object{"role": stream.String("assistant"), "content": stream.String(text)}
	if n := len(messages); n > 0 {
		last, err := rawjson.Read(messages[n-1])
		if err == nil && last.Str("role") == "assistant" {
			// Two trailing messages of the assistant are refused, or misread.
			if !rawjson.IsString(last["content"]) || !rawjson.IsNothing(last["tool_calls"]) {
				return nil, refuse(stream.ErrUnresumable, "cannot go on behind what was delivered: the client's own beginning of the answer is not plain text")
			}
			last["content"] = appendText(last["content"], text)
			message, messages = last, messages[:n-1]
		}
	}
	switch {
	case c.so.reasoning == "":
	case reasoning:
		message[c.so.field] = stream.String(c.so.reasoning)
	default:
		arguments := body.Sub("chat_template_kwargs")
		if arguments == nil {
			arguments = object{}
		}
		arguments["enable_thinking"] = rawjson.Bool(false)
		body["chat_template_kwargs"] = arguments.Bytes()
	}
	body["messages"] = rawjson.Join(append(slices.Clip(messages), message.Bytes()))
	c.q.kind.continueMessage(body)
	return body, nil
}

// appendText appends text to a JSON string, which is copied as it is.
func appendText(raw rawMessage, text string) rawMessage {
	more := stream.String(text)
	return append(raw[:len(raw)-1:len(raw)-1], more[1:]...)
}

// original returns a copy of the client's body, with what is left of its limits.
func (c *call) original() object {
	body := make(object, len(c.q.body)+8)
	maps.Copy(body, c.q.body)
	if !c.so.began {
		return body
	}
	// The engine writes the trailing white space again: those tokens do not count.
	// A token that has only part of it may need one more.
	spent := c.so.tokens - c.so.blankTokens
	for _, name := range []string{"max_tokens", "max_completion_tokens"} {
		if n, ok := body.Int(name); ok {
			n -= spent
			if c.so.mixed {
				n++
			}
			body[name] = rawjson.Number(n)
		}
	}
	if n, ok := body.Int("min_tokens"); ok {
		body["min_tokens"] = rawjson.Number(max(n-spent, 0))
	}
	return body
}

// left returns how many tokens the answer may still have, and whether it has a
// limit at all.
func (c *call) left() (tokens int, limited bool) {
	for _, name := range []string{"max_completion_tokens", "max_tokens"} {
		if n, ok := c.q.body.Int(name); ok && (!limited || n-c.so.tokens < tokens) {
			tokens, limited = n-c.so.tokens, true
		}
	}
	return tokens, limited
}

// stops returns the request's stop strings.
func (q *question) stops() []string {
	if s, ok := rawjson.Decode(q.body["stop"]); ok && s != "" {
		return []string{s}
	}
	var stops []string
	for _, raw := range q.body.List("stop") {
		if s, ok := rawjson.Decode(raw); ok && s != "" {
			stops = append(stops, s)
		}
	}
	return stops
}
