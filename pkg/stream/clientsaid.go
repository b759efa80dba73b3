package stream

import (
	"encoding/json"
	"strings"
	"time"
)

// said returns the break that a line is by which the server refuses a stream,
// hands it back or ends it with an error; nil if the line is another.
func said(a Annotated) *Break {
	b := &Break{Reason: a.comment(), Data: a.Data}
	switch a.Event {
	case eventOverloaded, eventDraining, eventUnresumable:
		b.Kind, b.RetryAfter = Kind(a.Event), retryAfter(a.Data)
	case eventMisdirected:
		b.Kind = Misdirected
	case eventError:
		// The first comment says which it is, further ones why.
		if len(a.Comment) == 0 || a.Comment[0] != brokenText {
			b.Kind, b.Err = Application, &Error{Message: b.Reason, Data: a.Data}
			return b
		}
		b.Kind, b.NoReport = Failed, isUnreported(a.Data)
		if len(a.Comment) > 1 {
			b.Reason = strings.Join(a.Comment[1:], "; ")
		}
	default:
		return nil
	}
	return b
}

// unknownRefusal is the break of a stream that a newer server has not started,
// for a reason of which this client knows nothing.
func unknownRefusal(a Annotated) *Break {
	return &Break{Kind: Overloaded, Reason: "server refuses with " + a.Event + ": " + a.comment(), Data: a.Data, RetryAfter: retryAfter(a.Data)}
}

// retryAfter reads when a server that has refused wants to be asked again.
func retryAfter(data json.RawMessage) time.Duration {
	var d struct {
		MS float64 `json:"retry_after_ms"`
	}
	if len(data) == 0 || json.Unmarshal(data, &d) != nil {
		return 0 // data for others
	}
	return time.Duration(min(max(d.MS, 0), maxTimeoutMS)) * time.Millisecond
}

// isUnreported reads whether a server that has broken a stream is sound.
func isUnreported(data json.RawMessage) bool {
	var d struct {
		Report *bool `json:"report"`
	}
	return len(data) > 0 && json.Unmarshal(data, &d) == nil && d.Report != nil && !*d.Report
}
