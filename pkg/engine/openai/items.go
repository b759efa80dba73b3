package openai

import (
	"github.com/request-migration/migrate/pkg/internal/rawjson"
	"github.com/request-migration/migrate/pkg/stream"
)

const (
	// maxText is the longest text of an item, in bytes of JSON. A line may have
	// four times as much.
	maxText = 256 << 10
	// restartGap is the blank line between old reasoning and new, as JSON.
	restartGap = `"\n\n"`
)

// take returns how many tokens the engine has given since it was last asked;
// unknownTokens if it does not say.
func (a *answer) take() int {
	if !a.counted {
		return unknownTokens
	}
	n := a.count - a.passed
	a.passed = a.count
	return n
}

// text passes text on, where it follows what the client has.
func (a *answer) text(p piece) error {
	a.c.got()
	if a.joint == nil {
		return a.piece(p)
	}
	pieces, settled, stopped, err := a.joint.add(p)
	if err != nil || !settled {
		return err
	}
	return a.fit(pieces, stopped)
}

// settle ends the comparison with what the client has: no more text comes.
func (a *answer) settle() error {
	if a.joint == nil {
		return nil
	}
	pieces, _, stopped, err := a.joint.settle(true)
	if err != nil {
		return err
	}
	return a.fit(pieces, stopped)
}

// fit passes on what was held back at the joint.
func (a *answer) fit(pieces []piece, stopped bool) error {
	a.joint = nil
	for _, p := range pieces {
		if err := a.piece(p); err != nil {
			return err
		}
	}
	if stopped {
		return a.finish("stop")
	}
	behind := a.behind
	a.behind = nil
	for _, item := range behind {
		if err := a.out(item); err != nil {
			return err
		}
	}
	return nil
}

// piece passes a piece of text on. It ends the answer if it has one token too
// many.
func (a *answer) piece(p piece) error {
	if a.limited {
		if a.room -= max(p.tokens, 0); a.room < 0 {
			return a.finish("length")
		}
	}
	for i, raw := range divide(p.raw) {
		if i > 0 {
			p.tokens = 0
		}
		data := raw
		if p.tokens >= 0 && p.tokens != 1 {
			data = object{"text": raw, "tokens": rawjson.Number(p.tokens)}.Bytes()
		}
		if err := a.out(stream.Annotated{Data: data}); err != nil {
			return err
		}
	}
	return nil
}

// reasoning passes reasoning on.
func (a *answer) reasoning(raw rawMessage, field string) error {
	a.c.got()
	if a.c.continuing() {
		return refuse(stream.ErrUnresumable, "the engine reasons again behind what was delivered")
	}
	tokens := a.take()
	if a.gap {
		a.gap = false
		gap := object{"text": rawMessage(restartGap), "tokens": rawjson.Number(0), "field": stream.String(field)}
		if err := a.out(stream.Annotated{Event: EventReasoning, Data: gap.Bytes()}); err != nil {
			return err
		}
	}
	for i, raw := range divide(raw) {
		if i > 0 {
			tokens = 0
		}
		item := object{"text": raw, "field": stream.String(field)}
		if tokens != unknownTokens {
			item["tokens"] = rawjson.Number(tokens)
		}
		if err := a.out(stream.Annotated{Event: EventReasoning, Data: item.Bytes()}); err != nil {
			return err
		}
	}
	return nil
}

// other passes on a chunk that neither ends the answer nor has part of a call.
func (a *answer) other(chunk object) error {
	item := chunkItem(chunk)
	if a.joint != nil {
		a.behind = append(a.behind, item)
		return nil
	}
	return a.out(item)
}

// callPart passes a part of a tool call on, or holds it back.
func (a *answer) callPart(chunk object) error {
	if err := a.settle(); err != nil {
		return err
	}
	a.held.begin()
	for _, part := range divideCall(chunk) {
		if err := a.out(chunkItem(part)); err != nil {
			return err
		}
	}
	return nil
}

// last passes on the chunk with a finish, behind everything that was held back.
func (a *answer) last(chunk object) error {
	if err := a.settle(); err != nil {
		return err
	}
	if len(a.finished) >= a.c.q.choices() {
		if err := a.letGo(); err != nil {
			return err
		}
	}
	for _, part := range divideCall(chunk) {
		if err := a.out(chunkItem(part)); err != nil {
			return err
		}
	}
	return nil
}

// finish ends the answer in place of the engine, and returns errFinished.
func (a *answer) finish(reason string) error {
	choice := object{"index": rawjson.Number(0), "finish_reason": stream.String(reason)}
	if a.c.q.path == chatPath {
		choice["delta"] = rawMessage("{}")
	} else {
		choice["text"] = rawMessage(`""`)
	}
	a.finished[0] = true
	if err := a.out(chunkItem(object{"choices": rawjson.Join([]rawMessage{choice.Bytes()})})); err != nil {
		return err
	}
	if err := a.lastUsage(); err != nil {
		return err
	}
	return errFinished
}

func chunkItem(chunk object) stream.Annotated {
	item := stream.Annotated{Event: EventChunk, Data: rawjson.OneLine(chunk.Bytes())}
	if hasContent(chunk) {
		item.Comment = contentComment()
	}
	return item
}

// contentComment marks an item whose event does not make it a remark: an answer that begins
// anew must have it, too.
func contentComment() []string { return []string{stream.CommentContent} }

// hasContent reports whether a chunk is a part of the answer: more than how it ends, and what
// it took.
func hasContent(chunk object) bool {
	for _, raw := range chunk.List("choices") {
		choice, err := rawjson.Read(raw)
		if err != nil {
			return true
		}
		if n, ok := choice.Int("index"); ok && n > 0 || !rawjson.IsNull(choice["logprobs"]) || !rawjson.IsNothing(choice["text"]) {
			return true
		}
		for name, value := range choice.Sub("delta") {
			if name != "role" && !rawjson.IsNothing(value) {
				return true
			}
		}
	}
	return false
}

// out sends an item, or holds it back behind a tool call.
func (a *answer) out(item stream.Annotated) error {
	if a.held.active {
		if a.held.add(item) {
			return nil
		}
		if err := a.letGo(); err != nil { // too much
			return err
		}
	}
	return a.send(item)
}

// letGo sends what was held back.
func (a *answer) letGo() error {
	for _, item := range a.held.end() {
		if err := a.send(item); err != nil {
			return err
		}
	}
	return nil
}

// send sends an item, behind the head.
func (a *answer) send(item stream.Annotated) error {
	if !a.headGone {
		a.headGone = true
		if len(a.head) > 0 {
			if err := a.c.put(stream.Annotated{Event: EventHead, Data: a.head.Bytes()}); err != nil {
				return err
			}
		}
	}
	return a.c.put(item)
}
