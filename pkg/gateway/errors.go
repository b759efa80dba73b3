package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/request-migration/migrate/pkg/internal/rawjson"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/stream"
)

// An apiError is an error as OpenAI's clients know it.
type apiError struct {
	status     int
	kind       string // "type" in JSON
	code       string
	message    string
	body       json.RawMessage // of an engine, in place of the others
	retryAfter time.Duration
	final      bool // the same request cannot succeed at once
}

func (e *apiError) Error() string { return e.message }

// json returns the error as the body of an answer.
func (e *apiError) json() json.RawMessage {
	if e.body != nil {
		return e.body
	}
	return rawjson.Object{"error": e.object()}.Bytes()
}

func (e *apiError) object() json.RawMessage {
	return rawjson.Object{
		"message": stream.String(e.message), "type": stream.String(e.kind), "code": stream.String(e.code), "param": json.RawMessage("null"),
	}.Bytes()
}

// write answers with the error.
func (e *apiError) write(w http.ResponseWriter) {
	if e.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(e.retryAfter.Seconds()))))
	}
	if e.final {
		w.Header().Set("X-Should-Retry", "false")
	}
	writeJSON(w, e.status, e.json())
}

func writeJSON(w http.ResponseWriter, status int, body json.RawMessage) {
	w.Header().Set("Content-Type", "application/json")
	writeWhole(w, status, append(body, '\n'))
}

// unknownModel says that nobody serves a model.
func (g *Gateway) unknownModel(name string) *apiError {
	listed, _ := g.models.names()
	has := "no model is served now"
	if len(listed) > 0 {
		has = "served are " + strings.Join(listed[:min(len(listed), 20)], ", ")
	}
	return &apiError{status: http.StatusNotFound, kind: "invalid_request_error", code: "model_not_found",
		message: fmt.Sprintf("the model %q is not served here: %s", name, has)}
}

// refused returns the engine's own answer to a mistake of the client, and whether err is one.
func refused(err error) (*apiError, bool) {
	own, ok := errors.AsType[*stream.Error](err)
	if !ok {
		return nil, errors.Is(err, stream.Application)
	}
	e := &apiError{status: http.StatusBadRequest, kind: "invalid_request_error", code: "engine_refused", message: own.Message}
	if data, err := rawjson.Read(own.Data); err == nil {
		if status, ok := data.Int("status"); ok && status >= 400 && status < 500 {
			e.status = status
		}
		if body := data["body"]; len(body) > 0 && body[0] == '{' {
			e.body = body
		}
	}
	return e, true
}

// isTooLong reports whether an engine refused a request because it is longer than the model's
// context. Another model may have a longer one.
func isTooLong(e *apiError) bool {
	if e == nil || e.status != http.StatusBadRequest && e.status != http.StatusRequestEntityTooLarge {
		return false
	}
	body, err := rawjson.Read(e.body)
	if err != nil {
		return false
	}
	inner := body.Sub("error")
	if inner == nil {
		inner = body
	}
	for _, field := range []string{"code", "type"} {
		switch inner.Str(field) {
		case "context_length_exceeded", "exceed_context_size_error":
			return true
		}
	}
	message := strings.ToLower(inner.Str("message"))
	return strings.Contains(message, "context length") || strings.Contains(message, "context size")
}

// judge returns what the client is told of an error for which nobody is left.
func judge(err error) *apiError {
	if own, ok := errors.AsType[*apiError](err); ok {
		return own
	}
	if e, ok := refused(err); ok && e != nil {
		return e
	}
	overloaded, isOverloaded := errors.AsType[*router.OverloadedError](err)
	none, isNone := errors.AsType[*router.NoInstancesError](err)
	switch {
	case errors.Is(err, errLeaving):
		return &apiError{status: http.StatusServiceUnavailable, kind: "server_error", code: "shutting_down", message: errLeaving.Error(), retryAfter: time.Second}
	case isOverloaded:
		return &apiError{status: http.StatusTooManyRequests, kind: "rate_limit_error", code: "overloaded", message: err.Error(),
			retryAfter: max(overloaded.Next, time.Second), final: true}
	case isSilent(err) && (!isNone || none.Source > 0):
		return &apiError{status: http.StatusGatewayTimeout, kind: "server_error", code: "engine_silent", message: err.Error(), final: true}
	case errors.Is(err, router.ErrCannotResume):
		return &apiError{status: http.StatusBadGateway, kind: "server_error", code: "cannot_resume", message: err.Error(), final: true}
	case isNone && (none.Source == 0 || len(attempts(err)) == 0):
		return &apiError{status: http.StatusServiceUnavailable, kind: "server_error", code: "no_instances", message: err.Error(),
			retryAfter: max(none.Next, time.Second), final: true}
	case errors.Is(err, context.Canceled):
		return &apiError{status: 499, kind: "invalid_request_error", code: "client_left", message: "the client has left"}
	}
	return &apiError{status: http.StatusBadGateway, kind: "server_error", code: "engine_failed", message: err.Error(), final: true}
}

// attempts returns the attempts within an error.
func attempts(err error) []error {
	if all, ok := errors.AsType[*router.AttemptsError](err); ok {
		return all.Attempts
	}
	return nil
}

// isSilent reports whether all attempts ended because nothing came.
func isSilent(err error) bool {
	all := attempts(err)
	for _, a := range all {
		b, ok := errors.AsType[*stream.Break](a)
		if !ok || b.Kind != stream.Stalled && b.Kind != stream.Unresponsive && !b.Silent {
			return false
		}
	}
	return len(all) > 0
}

// inStream returns the error as an event of a stream has it.
func (e *apiError) inStream() json.RawMessage {
	if body, err := rawjson.Read(e.body); err == nil {
		if inner := body["error"]; inner != nil {
			return inner
		}
	}
	return e.object()
}
