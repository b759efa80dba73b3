//go:build unix

package cmd_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// event is one line of `migrate request --output json`, whatever its type.
type event struct {
	Type     string
	Request  string
	Instance string
	Name     string
	Index    *int
	Data     json.RawMessage
	Kind     string
	Reported bool
	// Of a result.
	Outcome  string
	Error    string
	Items    int
	Attempts []attempt
	Refusals []attempt
	Served   []served
	Repeated int
	GapsMS   []float64 `json:"gaps_ms"`
}

type attempt struct {
	Attempt  int
	Name     string
	Kind     string
	Reported bool
}

type served struct {
	Name     string
	From, To int
}

// requestEvents is the lines of one request, the receipt last.
type requestEvents []event

func (r requestEvents) receipt() event { return r[len(r)-1] }

// parseEvents reads the output of `migrate request --output json`: every line
// is an object, those of one request stand together, and a result ends them.
func parseEvents(output string) ([]requestEvents, error) {
	var all []requestEvents
	var current requestEvents
	for line := range strings.Lines(output) {
		if !strings.HasSuffix(line, "\n") {
			return nil, fmt.Errorf("the last line has no end: %s", line)
		}
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return nil, fmt.Errorf("%w in line: %s", err, line)
		}
		current = append(current, e)
		switch e.Type {
		case "attempt", "item", "break", "refused":
			if current[0].Request != e.Request {
				return nil, fmt.Errorf("line of another request: %s", line)
			}
		case "result":
			all = append(all, current)
			current = nil
		default:
			return nil, fmt.Errorf("unknown type in line: %s", line)
		}
	}
	if len(current) > 0 {
		return nil, errors.New("the last line is no result")
	}
	for _, r := range all {
		if err := r.agree(); err != nil {
			return nil, fmt.Errorf("request %s: %w", r.receipt().Request, err)
		}
	}
	return all, nil
}

// agree checks the receipt against the lines before it.
func (r requestEvents) agree() error {
	attempts, breaks := 0, 0
	next := map[string]int{} // index of the next item, by instance and attempt
	items := 0
	for _, e := range r {
		switch e.Type {
		case "attempt":
			attempts++
			clear(next)
		case "item":
			if e.Index == nil || len(e.Data) == 0 {
				return errors.New("an item without index or data")
			}
			if n, ok := next[e.Instance]; ok && n != *e.Index {
				return fmt.Errorf("item %d comes where item %d should", *e.Index, n)
			}
			next[e.Instance] = *e.Index + 1
			items++
		case "break", "refused":
			breaks++
			if e.Kind == "" {
				return errors.New("a break without kind")
			}
		}
	}
	receipt := r.receipt()
	breaks -= len(receipt.Refusals)
	if len(receipt.Attempts)+len(receipt.Refusals) != attempts {
		return fmt.Errorf("the receipt has %d attempts and %d refusals, the lines have %d of both", len(receipt.Attempts), len(receipt.Refusals), attempts)
	}
	for i, a := range receipt.Attempts {
		if a.Kind != "" {
			breaks--
		} else if i < len(receipt.Attempts)-1 {
			return fmt.Errorf("attempt %d was followed by another without a break", a.Attempt)
		}
	}
	if breaks != 0 && receipt.Outcome != "cancelled" {
		return fmt.Errorf("the lines have %d breaks more than the receipt", breaks)
	}
	if received := receipt.Items + receipt.Repeated; received != items {
		return fmt.Errorf("the receipt has %d items and %d repeated, the lines have %d", receipt.Items, receipt.Repeated, items)
	}
	from := 0
	for _, s := range receipt.Served {
		if s.From != from || s.To <= s.From {
			return fmt.Errorf("served from %d to %d after %d", s.From, s.To, from)
		}
		from = s.To
	}
	if receipt.Outcome == "success" && from != receipt.Items {
		return fmt.Errorf("%d of %d items are accounted for", from, receipt.Items)
	}
	return nil
}

// field returns a part of the receipt as text, for a test to compare:
// "attempts", "names", "kinds" and "reported" of the attempts, "refused", "served", "items",
// "repeated", "gaps", "outcome".
func (e event) field(name string) (string, error) {
	var parts []string
	switch name {
	case "outcome":
		return e.Outcome, nil
	case "items":
		return strconv.Itoa(e.Items), nil
	case "repeated":
		return strconv.Itoa(e.Repeated), nil
	case "gaps":
		return strconv.Itoa(len(e.GapsMS)), nil
	case "attempts":
		return strconv.Itoa(len(e.Attempts)), nil
	case "names", "kinds", "reported":
		for _, a := range e.Attempts {
			parts = append(parts, map[string]string{
				"names": a.Name, "kinds": a.Kind, "reported": strconv.FormatBool(a.Reported),
			}[name])
		}
	case "refused":
		for _, a := range e.Refusals {
			parts = append(parts, a.Name+":"+a.Kind)
		}
	case "served":
		for _, s := range e.Served {
			parts = append(parts, fmt.Sprintf("%s:%d-%d", s.Name, s.From, s.To))
		}
	default:
		return "", fmt.Errorf("a receipt has no %q", name)
	}
	return strings.Join(parts, ","), nil
}
