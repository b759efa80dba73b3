package openai

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/request-migration/migrate/pkg/internal/rawjson"
	"github.com/request-migration/migrate/pkg/stream"
)

// refusal is an error that ends a stream in the way that its kind says, with a
// text of its own.
type refusal struct {
	kind error
	text string
}

func (r *refusal) Error() string { return r.text }

func (r *refusal) Unwrap() error { return r.kind }

func refuse(kind error, format string, args ...any) error {
	return &refusal{kind, fmt.Sprintf(format, args...)}
}

// maxErrorBody is how much is read of the body of an engine's error.
const maxErrorBody = 256 << 10

// shownError is how much of it is shown in a text.
const shownError = 512

// engineError is an answer that is not the one that was asked for.
type engineError struct {
	status int
	header http.Header
	body   []byte
}

// readError reads an answer with a status other than 200.
func readError(resp *http.Response) *engineError {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil && len(body) == 0 {
		body = []byte(err.Error())
	}
	return &engineError{resp.StatusCode, resp.Header, body}
}

// text says what the engine answered.
func (f *engineError) text() string {
	what := fmt.Sprintf("the engine answered %d", f.status)
	if name := http.StatusText(f.status); name != "" {
		what += " " + name
	}
	shown := strings.ToValidUTF8(strings.Join(strings.Fields(string(f.body)), " "), "�") // one line, of a page of HTML too
	if len(shown) > shownError {
		cut := shownError
		for !utf8.RuneStart(shown[cut]) {
			cut--
		}
		shown = shown[:cut] + "…"
	}
	if shown != "" {
		what += ": " + shown
	}
	return what
}

// refused reports whether the engine takes the request to be wrong.
func (f *engineError) refused() bool {
	switch f.status {
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly, http.StatusTooManyRequests,
		http.StatusUnauthorized, http.StatusForbidden:
		return false
	}
	return f.status/100 == 4
}

// names reports whether the engine names one of the fields as what it does not
// know.
func (f *engineError) names(fields ...string) bool {
	if f.status != http.StatusBadRequest && f.status != http.StatusUnprocessableEntity {
		return false
	}
	for _, field := range fields {
		if strings.Contains(string(f.body), field) {
			return true
		}
	}
	return false
}

// statusOverloaded is Anthropic's; other providers use it as well.
const statusOverloaded = 529

// failure returns what follows from an engine's answer. A continuation that is
// refused says nothing against the request, which had been taken.
func (c *call) failure(f *engineError) error {
	switch f.status {
	case http.StatusBadGateway, http.StatusGatewayTimeout:
		return refuse(stream.ErrFailed, "%s", f.text())
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, statusOverloaded:
		return refuse(stream.OverloadedFor(retryAfter(f.header, time.Now())), "%s", f.text())
	case http.StatusUnauthorized, http.StatusForbidden:
		c.e.log.Error("The engine does not take our key", "engine", c.e.base.String(), "status", f.status)
		return refuse(stream.ErrFailedUnreported, "%s", f.text())
	case http.StatusNotFound:
		c.e.known.want()
		if c.e.known.lists(c.q.model) && !c.continuing() {
			return refuse(stream.ErrOverloaded, "%s, for a model that it lists", f.text())
		}
	}
	switch {
	case f.refused() && c.continuing():
		return refuse(stream.ErrUnresumable, "%s", f.text())
	case f.refused():
		return &stream.Error{Message: f.text(), Data: f.data()}
	}
	return refuse(stream.ErrFailedUnreported, "%s", f.text())
}

// data is the error for the client: the status, and the body as it came.
func (f *engineError) data() json.RawMessage {
	body := rawjson.OneLine(f.body)
	if !json.Valid(body) || !utf8.Valid(body) {
		body = stream.String(string(f.body))
	}
	return object{"status": rawjson.Number(f.status), "body": body}.Bytes()
}

// chunkError returns what follows from an error object in the stream; nil if the
// chunk is none.
func (c *call) chunkError(data string, chunk object) error {
	inner := chunk["error"]
	if rawjson.IsNull(inner) {
		if chunk.Str("object") != "error" {
			return nil
		}
		inner = json.RawMessage(data) // an older form
	}
	f := &engineError{http.StatusInternalServerError, nil, []byte(data)}
	if o, err := rawjson.Read(inner); err == nil {
		if code, ok := o.Int("code"); ok && code >= 400 && code <= 599 {
			f.status = code
		} else if code, err := strconv.Atoi(o.Str("code")); err == nil && code >= 400 && code <= 599 {
			f.status = code
		}
	}
	what := fmt.Sprintf("the engine gave an error: %.*s", shownError, strings.ToValidUTF8(data, "�"))
	switch {
	case c.items > 0:
		return refuse(stream.ErrFailed, "%s", what)
	case f.status >= 500, f.status == http.StatusRequestTimeout, f.status == http.StatusTooManyRequests:
		return refuse(stream.ErrFailedUnreported, "%s", what)
	case c.continuing():
		return refuse(stream.ErrUnresumable, "%s", what)
	}
	return &stream.Error{Message: what, Data: f.data()}
}

// maxRetryAfter bounds what an engine may ask for.
const maxRetryAfter = time.Hour

// retryAfter reads for how long an engine asks to be spared; 0 if it does not say.
func retryAfter(header http.Header, now time.Time) time.Duration {
	value := strings.TrimSpace(header.Get("Retry-After"))
	if seconds, err := strconv.ParseFloat(value, 64); err == nil && seconds > 0 {
		return time.Duration(min(seconds, maxRetryAfter.Seconds()) * float64(time.Second))
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(at.Sub(now), 0), maxRetryAfter)
	}
	return 0
}
