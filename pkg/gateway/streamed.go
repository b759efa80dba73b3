package gateway

import (
	"bytes"
	"encoding/json"
	"maps"

	"github.com/request-migration/migrate/pkg/engine/openai"
	"github.com/request-migration/migrate/pkg/internal/rawjson"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/stream"
)

// streamed is the answer of a client that reads along.
type streamed struct {
	*events
	q    *query
	a    *answer
	role bool // the role was sent
	gave bool // a part of the answer was sent
	// front and back are what a chunk of text has around its text, for the model and the id.
	front, back []byte
	frontOf     string
}

func (s *streamed) object() string {
	if s.a.chat {
		return "chat.completion.chunk"
	}
	return "text_completion"
}

func (s *streamed) anew() {}

func (s *streamed) item(i router.Item, migrated *Migration) (delivered bool, err error) {
	if migrated != nil {
		err = s.comment(append([]byte("migrated "), migrated.json()...))
	}
	if err == nil {
		err = s.send(i)
	}
	return s.gave, err
}

// send sends what an item says.
func (s *streamed) send(i router.Item) error {
	if !s.gave {
		s.from(i.Peer.Name)
	}
	switch i.Event {
	case openai.EventHead:
		s.a.head(i.Data)
		s.frontOf = "" // the fingerprint may be another
		return nil
	case "":
		return s.content(s.a.text(i.Data))
	case openai.EventReasoning:
		text, field := s.a.thought(i.Data)
		return s.delta(rawjson.Object{field: text})
	case openai.EventChunk:
		return s.chunk(i.Data)
	}
	return nil
}

// content sends a chunk of text. It is what nearly all chunks are, so what they have in common
// is made once.
func (s *streamed) content(text json.RawMessage) error {
	if err := s.beginRole(); err != nil {
		return err
	}
	if s.frontOf != s.a.model {
		s.frontOf = s.a.model
		const mark = "@TEXT@"
		choice := rawjson.Object{"index": rawjson.Number(0), "finish_reason": json.RawMessage("null"), "logprobs": json.RawMessage("null")}
		if s.a.chat {
			choice["delta"] = json.RawMessage(`{"content":` + mark + `}`)
		} else {
			choice["text"] = json.RawMessage(mark)
		}
		o := s.a.named(s.q.id, s.object())
		o["choices"] = rawjson.Join([]json.RawMessage{choice.Bytes()})
		s.front, s.back, _ = bytes.Cut(o.Bytes(), []byte(mark))
	}
	s.gave = true
	s.buf = append(append(s.buf[:0], "data: "...), s.front...)
	s.buf = append(append(append(s.buf, text...), s.back...), "\n\n"...)
	return s.write(s.buf)
}

// delta sends a chunk whose first choice has that delta.
func (s *streamed) delta(delta rawjson.Object) error {
	if err := s.beginRole(); err != nil {
		return err
	}
	return s.choice(delta)
}

func (s *streamed) choice(delta rawjson.Object) error {
	choice := rawjson.Object{"index": rawjson.Number(0), "delta": delta.Bytes(), "finish_reason": json.RawMessage("null"), "logprobs": json.RawMessage("null")}
	o := s.a.named(s.q.id, s.object())
	o["choices"] = rawjson.Join([]json.RawMessage{choice.Bytes()})
	s.gave = true
	return s.data(o.Bytes())
}

// beginRole sends the role of an answer to a chat, once.
func (s *streamed) beginRole() error {
	if s.role || !s.a.chat {
		return nil
	}
	s.role = true
	return s.choice(rawjson.Object{"role": stream.String("assistant"), "content": stream.String("")})
}

// chunk sends any other chunk.
func (s *streamed) chunk(data json.RawMessage) error {
	chunk, err := rawjson.Read(data)
	if err != nil || !s.a.chunkUsage(chunk, s.q.wantsUsage) {
		return nil //nolint:nilerr // the engine's handler makes no such items
	}
	if len(chunk.List("choices")) > 0 {
		if err := s.beginRole(); err != nil {
			return err
		}
	}
	maps.Copy(chunk, s.a.named(s.q.id, s.object()))
	s.gave = true
	return s.data(chunk.Bytes())
}

func (s *streamed) end(failed *apiError) error {
	defer s.events.end()
	switch {
	case failed == nil:
		if usage := s.a.missing(); usage != nil && s.q.wantsUsage {
			o := s.a.named(s.q.id, s.object())
			o["choices"], o["usage"] = json.RawMessage("[]"), usage.Bytes()
			if err := s.data(o.Bytes()); err != nil {
				return err
			}
		}
		return s.write([]byte("data: [DONE]\n\n"))
	case !s.stopPinging():
		failed.write(s.w)
		return nil
	}
	_ = s.data(rawjson.Object{"error": failed.inStream()}.Bytes()) // the connection is aborted all the same
	return failed
}
