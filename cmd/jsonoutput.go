package cmd

import (
	"context"
	"encoding/json"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/router/receipt"
	"github.com/request-migration/migrate/pkg/stream"
)

// jsonOutput prints what happens, an object a line, and the receipt last.
type jsonOutput struct{ *printer }

type attemptLine struct {
	Type     string               `json:"type"` // attempt
	Request  string               `json:"request"`
	Attempt  int                  `json:"attempt"`
	From     int                  `json:"from"`
	Instance discovery.InstanceID `json:"instance"`
	Name     string               `json:"name"`
}

type itemLine struct {
	Type     string               `json:"type"` // item
	Request  string               `json:"request"`
	Attempt  int                  `json:"attempt"`
	Instance discovery.InstanceID `json:"instance"`
	Index    int                  `json:"index"`
	stream.Annotated
}

type breakLine struct {
	Type     string               `json:"type"` // break, or refused
	Request  string               `json:"request"`
	Attempt  int                  `json:"attempt"`
	Instance discovery.InstanceID `json:"instance"`
	Name     string               `json:"name"`
	Kind     stream.Kind          `json:"kind"`
	Error    string               `json:"error"`
	Reported bool                 `json:"reported"` // as down
	// AttemptsLeft is how many there are; the result tells whether there was an
	// instance for them.
	AttemptsLeft int `json:"attempts_left"`
}

type resultLine struct {
	Type string `json:"type"` // result
	receipt.Receipt
}

func (o *jsonOutput) trace(ctx context.Context) *router.Trace {
	var attempt router.AttemptEvent
	broke := func(kind string) func(router.BreakEvent) {
		return func(e router.BreakEvent) {
			o.line(ctx, breakLine{
				Type: kind, Request: attempt.Request, Attempt: e.Attempt,
				Instance: e.Instance.ID, Name: e.Instance.Name,
				Kind: e.Kind(), Error: e.Err.Error(), Reported: e.Reported, AttemptsLeft: e.AttemptsLeft,
			})
		}
	}
	return &router.Trace{
		Attempt: func(e router.AttemptEvent) { attempt = e },
		Chosen: func(e router.ChosenEvent) {
			o.line(ctx, attemptLine{
				Type: "attempt", Request: attempt.Request, Attempt: e.Attempt, From: attempt.From,
				Instance: e.Instance.ID, Name: e.Instance.Name,
			})
		},
		Item: func(i router.Item) {
			o.line(ctx, itemLine{
				Type: "item", Request: attempt.Request, Attempt: i.Attempt,
				Instance: i.Peer.ID, Index: i.Index, Annotated: i.Annotated,
			})
		},
		Refused: broke("refused"),
		Break:   broke("break"),
	}
}

func (o *jsonOutput) done(ctx context.Context, receipt receipt.Receipt, _ error) {
	o.line(ctx, resultLine{Type: "result", Receipt: receipt})
	o.flush(ctx)
}

func (o *jsonOutput) line(ctx context.Context, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // the types above are ours, and all can be marshalled
	}
	o.print(ctx, append(b, '\n'))
}
