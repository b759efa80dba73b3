package openai

import (
	"context"
	"io"
	"mime"
	"net/http"
	"unicode/utf8"

	"github.com/tmaxmax/go-sse"

	"github.com/request-migration/migrate/pkg/internal/rawjson"
	"github.com/request-migration/migrate/pkg/stream"
)

// maxPart is how much of a body goes into one item, in bytes: in JSON they may
// become three times as many.
const maxPart = 256 << 10

// pass passes the answer on as it is. The first item has its status and header,
// and the beginning of its body; further ones the rest of the body, or each its
// events.
func (c *call) pass() error {
	ctx, cancel, keep := c.begin()
	defer cancel(nil)
	defer keep()
	defer c.clock.stop()
	resp, err := c.post(ctx, c.q.body)
	if err != nil {
		return c.notOpened(ctx, err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was read, or is of no use
	c.got()
	first := object{"status": rawjson.Number(resp.StatusCode), "headers": passedBack(resp.Header)}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")) // an error: no stream
	if kind == "text/event-stream" {
		return c.passEvents(ctx, resp.Body, first)
	}
	return c.passBody(ctx, resp.Body, first)
}

// passedBack returns the headers of an answer that its client is to see.
func passedBack(header http.Header) rawMessage {
	o := object{}
	for _, name := range []string{"Content-Type", "Retry-After", "X-Request-Id", "Request-Id", "Openai-Processing-Ms"} {
		if value := header.Get(name); value != "" {
			o[name] = stream.String(value)
		}
	}
	return o.Bytes()
}

func (c *call) passEvents(ctx context.Context, body io.Reader, first object) error {
	if err := c.put(stream.Annotated{Event: EventResponse, Comment: contentComment(), Data: first.Bytes()}); err != nil {
		return err
	}
	for event, err := range sse.Read(body, &sse.ReadConfig{MaxEventSize: maxEvent}) {
		if err != nil {
			return c.ended(ctx, err)
		}
		c.got()
		parts := divide(stream.String(event.Data))
		for i, part := range parts {
			item := object{"data": part}
			if i == 0 && event.Type != "" {
				item["event"] = stream.String(event.Type)
			}
			if i < len(parts)-1 {
				item["more"] = rawjson.Bool(true) // of the event follows
			}
			if err := c.put(stream.Annotated{Event: EventSSE, Comment: contentComment(), Data: item.Bytes()}); err != nil {
				return err
			}
		}
	}
	if ctx.Err() != nil {
		return c.ended(ctx, ctx.Err())
	}
	return nil
}

func (c *call) passBody(ctx context.Context, body io.Reader, item object) error {
	part := make([]byte, 0, 4<<10)
	for {
		n, err := io.ReadFull(body, part[len(part):cap(part)])
		part = part[:len(part)+n]
		end := err == io.EOF || err == io.ErrUnexpectedEOF
		switch {
		case err != nil && (!end || ctx.Err() != nil):
			return c.ended(ctx, err)
		case !end && cap(part) < maxPart:
			part = append(make([]byte, 0, min(4*cap(part), maxPart)), part...)
			continue
		}
		whole := len(part)
		if !end {
			whole = wholeRunes(part)
		}
		if !utf8.Valid(part[:whole]) {
			return &stream.Error{Message: "the engine's answer is no text"}
		}
		c.got()
		item["body"] = stream.String(string(part[:whole]))
		if err := c.put(stream.Annotated{Event: EventResponse, Comment: contentComment(), Data: item.Bytes()}); err != nil || end {
			return err
		}
		part = append(part[:0], part[whole:]...)
		item = object{}
	}
}

// wholeRunes returns how many bytes of text are whole characters.
func wholeRunes(text []byte) int {
	for n := len(text) - 1; n >= 0 && n >= len(text)-utf8.UTFMax; n-- {
		if utf8.RuneStart(text[n]) {
			if utf8.FullRune(text[n:]) {
				return len(text)
			}
			return n
		}
	}
	return len(text)
}
