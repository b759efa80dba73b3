package openai

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"syscall"

	"github.com/tmaxmax/go-sse"

	"github.com/request-migration/migrate/pkg/internal/rawjson"
	"github.com/request-migration/migrate/pkg/stream"
)

// maxEvent is the longest event that an engine may send, in bytes: more than a
// held tool call may have.
const maxEvent = 16 << 20

// errLastWord ends the reading of an answer whose last word was read.
var errLastWord = errors.New("the answer is complete")

// errFinished ends the reading of an answer that this package has ended itself,
// while the engine may still be at work.
var errFinished = errors.New("the answer was ended")

// answer asks the engine and divides what it answers into items.
func (c *call) answer() error {
	if n := c.so.finished; n > 0 && n >= c.q.choices() {
		return nil // only the end was lost
	}
	if err := c.cannotContinue(); err != nil {
		return err
	}
	a := newAnswer(c)
	if n, limited := c.left(); limited && n <= 0 && c.so.began {
		c.clock = startClock(func(error) {}, c.e.cfg.ItemTimeout, c.e.cfg.ItemTimeout)
		defer c.clock.stop()
		if err := a.finish("length"); !errors.Is(err, errFinished) {
			return err
		}
		return nil
	}
	ctx, cancel, keep := c.begin()
	defer keep()
	defer c.clock.stop()
	resp, err := c.open(ctx)
	if err != nil {
		defer cancel(nil)
		return c.notOpened(ctx, err)
	}
	err = a.read(ctx, resp)
	if errors.Is(err, errLastWord) {
		keep()
		c.e.release(resp.Body, func() { cancel(nil) })
		return nil
	}
	cancel(nil)
	_ = resp.Body.Close() // cancelled
	if errors.Is(err, errFinished) {
		return nil
	}
	return err
}

// open sends the request to the engine, the original or a continuation.
func (c *call) open(ctx context.Context) (*http.Response, error) {
	if !c.continuing() {
		return c.postStreamed(ctx, c.original())
	}
	body, err := c.continued(true)
	if err != nil {
		return nil, err
	}
	resp, err := c.postStreamed(ctx, body)
	if f, ok := errors.AsType[*engineError](err); ok && f.refused() && c.so.reasoning != "" && c.q.path == chatPath {
		if body, err = c.continued(false); err != nil {
			return nil, err
		}
		return c.postStreamed(ctx, body)
	}
	return resp, err
}

// postStreamed makes the engine stream. One that does not know stream_options is
// asked again without, and remembered.
func (c *call) postStreamed(ctx context.Context, body object) (*http.Response, error) {
	plain := c.e.plain.Load()
	resp, err := c.post(ctx, c.q.streamed(body, plain))
	if f, ok := errors.AsType[*engineError](err); ok && !plain && !c.q.wantsUsage && f.names("stream_options", "include_usage") {
		c.e.plain.Store(true)
		return c.post(ctx, c.q.streamed(body, true))
	}
	return resp, err
}

// notOpened returns what follows from a request that the engine did not answer
// with 200.
func (c *call) notOpened(ctx context.Context, err error) error {
	if f, ok := errors.AsType[*engineError](err); ok {
		return c.failure(f)
	}
	if _, ok := errors.AsType[*refusal](err); ok {
		return err
	}
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.EADDRNOTAVAIL) {
		return refuse(stream.ErrFailedUnreported, "this machine's own trouble: %v", err)
	}
	return c.ended(ctx, err)
}

// answer is what an engine answers, as it is read.
type answer struct {
	c     *call
	joint *joint // nil once the continuation fits
	// behind are chunks that came while joint still held text back.
	behind []stream.Annotated
	held   holding

	alike alike
	said  rawMessage // the text that the last chunk was; nil if it said anything else

	head     object
	headGone bool
	counted  bool // the engine says how many tokens there are
	count    int  // how many, so far
	passed   int  // how many of them went out
	room     int  // how many more may, if limited
	limited  bool
	gap      bool       // new reasoning follows old
	usage    rawMessage // the last that was taken out
	latest   string     // a later chunk that counts tokens, and may have usage
	usageOut bool       // usage went out
	finished map[int]bool
}

func newAnswer(c *call) *answer {
	a := &answer{c: c, joint: c.joint(), head: object{}, finished: map[int]bool{}}
	a.held.on = c.e.cfg.ToolCalls == ToolCallsHold
	a.gap = !c.so.began && c.so.reasoning != ""
	if c.so.mixed {
		a.room, a.limited = c.left()
	}
	return a
}

// read reads the events of an answer. It returns errLastWord if the answer is
// complete.
func (a *answer) read(ctx context.Context, resp *http.Response) error {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")) // an error: no stream
	if kind != "text/event-stream" {
		return a.noStream(ctx, resp)
	}
	for event, err := range sse.Read(resp.Body, &sse.ReadConfig{MaxEventSize: maxEvent}) {
		if err != nil {
			return a.c.ended(ctx, err)
		}
		if err := a.event(event.Data); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return a.c.ended(ctx, ctx.Err())
	}
	return a.lastWord("the engine's answer ended")
}

// noStream returns what follows from an answer that is no stream of events.
func (a *answer) noStream(ctx context.Context, resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil {
		return a.c.ended(ctx, err)
	}
	if o, err := rawjson.Read(body); err == nil {
		if err := a.c.chunkError(string(body), o); err != nil {
			return err
		}
	}
	return refuse(stream.ErrFailed, "the engine answered with no stream of events, but %q", resp.Header.Get("Content-Type"))
}

// lastWord judges an end: it is a break unless the answer was complete. Official
// clients take it for success.
func (a *answer) lastWord(how string) error {
	if len(a.finished) < a.c.q.choices() {
		return refuse(stream.ErrFailed, "%s before its last word", how)
	}
	if err := a.lastUsage(); err != nil {
		return err
	}
	return errLastWord
}

// lastUsage passes usage on that came with a choice, to a client that wants it by
// itself.
func (a *answer) lastUsage() error {
	if !a.c.q.passesUsage || a.usageOut {
		return nil
	}
	if chunk, err := rawjson.Read([]byte(a.latest)); err == nil && chunk.Has("usage") {
		a.usage = rawjson.OneLine(chunk["usage"])
	}
	if a.usage == nil {
		return nil
	}
	a.usageOut = true
	return a.other(object{"choices": rawMessage("[]"), "usage": a.usage})
}

// event reads one event.
func (a *answer) event(data string) error {
	if data == "" {
		return nil // an event without data, which some send to keep the connection
	}
	if strings.TrimSpace(data) == "[DONE]" {
		return a.lastWord("the engine said that it is done")
	}
	if text, tokens, ok := a.alike.text(data); ok {
		if tokens >= 0 {
			a.count, a.counted, a.latest = max(a.count, tokens), true, data
		}
		return a.text(piece{text, a.take()})
	}
	chunk, err := rawjson.Read([]byte(data))
	if err != nil {
		return refuse(stream.ErrFailed, "the engine sent a chunk that is no JSON object: %.60q", data)
	}
	if err := a.c.chunkError(data, chunk); err != nil {
		return err
	}
	bare := a.headGone && !chunk.Has("prompt_progress")
	a.said = nil
	if err := a.chunk(chunk); err != nil || !bare || a.said == nil {
		return err
	}
	a.alike.learn(data, a.c.q.textField(), a.said)
	return nil
}

// chunk divides a chunk.
func (a *answer) chunk(chunk object) error {
	a.takeHead(chunk)
	choices := chunk.List("choices")
	a.takeOwn(chunk, len(choices) > 0)
	if len(choices) == 1 {
		choice, err := rawjson.Read(choices[0])
		if err != nil {
			return refuse(stream.ErrFailed, "the engine sent a choice that is no object: %.60q", choices[0])
		}
		if index, _ := choice.Int("index"); index == 0 && !choice.Has("logprobs") {
			return a.only(chunk, choice)
		}
	}
	return a.several(chunk, choices)
}

// takeHead takes what holds for the whole answer out of a chunk.
func (a *answer) takeHead(chunk object) {
	for _, name := range []string{"id", "created", "model", "system_fingerprint"} {
		if chunk.Has(name) && !a.head.Has(name) {
			a.head[name] = rawjson.OneLine(chunk[name])
		}
		delete(chunk, name)
	}
	delete(chunk, "object") // the path says the same
}

// takeOwn reads how far the engine is, and takes out what the client did not ask
// for.
func (a *answer) takeOwn(chunk object, hasChoices bool) {
	q := a.c.q
	if usage := chunk.Sub("usage"); usage != nil {
		if n, ok := usage.Int("completion_tokens"); ok {
			a.count, a.counted = max(a.count, n), true
		}
		if n, ok := usage.Int("prompt_tokens"); ok && !a.head.Has("prompt_tokens") {
			a.head["prompt_tokens"] = rawjson.Number(n)
		}
		if !q.passesUsage || hasChoices && !q.wantsUsageAlways {
			a.usage, a.latest = rawjson.OneLine(chunk["usage"]), ""
			delete(chunk, "usage")
		} else {
			a.usageOut = true
		}
	}
	if timings := chunk.Sub("timings"); timings != nil {
		if n, ok := timings.Int("predicted_n"); ok {
			a.count, a.counted = max(a.count, n), true
		}
		read, ok := timings.Int("prompt_n")
		cached, _ := timings.Int("cache_n")
		if ok && a.count > 0 && !a.head.Has("prompt_tokens") {
			a.head["prompt_tokens"] = rawjson.Number(read + cached)
		}
		if !q.wantsTimings {
			delete(chunk, "timings")
		}
	}
	if chunk.Has("prompt_progress") {
		a.c.clock.progress()
		if !q.wantsProgress {
			delete(chunk, "prompt_progress")
		}
	}
}

// only divides a chunk of the only choice: its reasoning, its text, and what else
// it says.
func (a *answer) only(chunk, choice object) error {
	where, field := choice, a.c.q.textField()
	if a.c.q.path == chatPath {
		where = choice.Sub("delta")
		if where == nil {
			where = object{}
		}
	}
	thought := false
	for _, name := range []string{"reasoning_content", "reasoning"} {
		raw := where[name]
		if !rawjson.IsString(raw) || rawjson.IsNothing(raw) {
			continue
		}
		if other := where["reasoning"]; name != "reasoning" && string(other) == string(raw) {
			delete(where, "reasoning") // sent under both names
		}
		delete(where, name)
		thought = true
		if err := a.reasoning(raw, name); err != nil {
			return err
		}
	}
	if raw := where[field]; rawjson.IsString(raw) && !rawjson.IsNothing(raw) {
		delete(where, field)
		if err := a.text(piece{raw, a.take()}); err != nil {
			return err
		}
		if !thought {
			a.said = raw
		}
	}
	calls := !rawjson.IsNothing(where["tool_calls"]) || !rawjson.IsNothing(where["function_call"])
	if calls {
		a.c.got()
	}
	finish := choice.Str("finish_reason")
	if finish == "abort" || finish == "error" {
		return refuse(stream.ErrFailed, "the engine gave up: finish_reason is %q", finish)
	}
	if !saysAnything(chunk, choice, where) {
		return nil
	}
	a.said = nil
	if a.c.q.path == chatPath {
		choice["delta"] = where.Bytes()
	} else if choice["text"] == nil {
		choice["text"] = rawMessage(`""`)
	}
	chunk["choices"] = rawjson.Join([]rawMessage{choice.Bytes()})
	switch {
	case finish != "":
		a.finished[0] = true
		return a.last(chunk)
	case calls:
		return a.callPart(chunk)
	}
	return a.other(chunk)
}

// saysAnything reports whether a chunk says more than whose it is.
func saysAnything(chunk, choice, delta object) bool {
	for name, raw := range chunk {
		if name != "choices" && !rawjson.IsNothing(raw) {
			return true
		}
	}
	for name, raw := range choice {
		if name != "index" && name != "delta" && !rawjson.IsNothing(raw) {
			return true
		}
	}
	for name, raw := range delta {
		if name != "role" && name != "index" && !rawjson.IsNothing(raw) {
			return true
		}
	}
	return false
}

// several passes a chunk on as it came: it has several choices, one that is not
// the first, text with logprobs, or none.
func (a *answer) several(chunk object, choices []rawMessage) error {
	says, finishes, calls, gives := false, false, false, false
	for _, raw := range choices {
		choice, err := rawjson.Read(raw)
		if err != nil {
			return refuse(stream.ErrFailed, "the engine sent a choice that is no object: %.60q", raw)
		}
		delta := choice.Sub("delta")
		switch finish := choice.Str("finish_reason"); finish {
		case "":
		case "abort", "error":
			return refuse(stream.ErrFailed, "the engine gave up: finish_reason is %q", finish)
		default:
			index, _ := choice.Int("index")
			a.finished[index] = true
			finishes = true
		}
		calls = calls || !rawjson.IsNothing(delta["tool_calls"])
		says = says || saysAnything(nil, choice, delta)
		for _, text := range []rawMessage{choice["text"], delta["content"], delta["reasoning"], delta["reasoning_content"], delta["tool_calls"]} {
			gives = gives || !rawjson.IsNothing(text)
		}
	}
	if gives {
		a.c.got()
	}
	a.passed = a.count
	switch {
	case !says && !saysAnything(chunk, nil, nil):
		return nil
	case finishes:
		return a.last(chunk)
	case calls:
		return a.callPart(chunk)
	}
	return a.other(chunk)
}
