package cmd

import (
	"encoding/json"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/router"
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
	Blamed   bool                 `json:"blamed"`
	Retry    bool                 `json:"retry"`
}

type resultLine struct {
	Type string `json:"type"` // result
	router.Receipt
}

func (o *jsonOutput) trace() *router.Trace {
	var attempt router.AttemptEvent
	broke := func(kind string) func(router.BreakEvent) {
		return func(e router.BreakEvent) {
			o.line(breakLine{
				Type: kind, Request: attempt.Request, Attempt: e.Attempt,
				Instance: e.Instance.ID, Name: e.Instance.Name,
				Kind: e.Kind(), Error: e.Err.Error(), Blamed: e.Reported, Retry: e.Retry,
			})
		}
	}
	return &router.Trace{
		Attempt: func(e router.AttemptEvent) { attempt = e },
		Chosen: func(e router.ChosenEvent) {
			o.line(attemptLine{
				Type: "attempt", Request: attempt.Request, Attempt: e.Attempt, From: attempt.From,
				Instance: e.Instance.ID, Name: e.Instance.Name,
			})
		},
		Item: func(i router.Item) {
			o.line(itemLine{
				Type: "item", Request: attempt.Request, Attempt: i.Attempt,
				Instance: i.Peer.ID, Index: i.Index, Annotated: i.Annotated,
			})
		},
		Refused: broke("refused"),
		Break:   broke("break"),
	}
}

func (o *jsonOutput) done(receipt router.Receipt, _ error) {
	o.line(resultLine{Type: "result", Receipt: receipt})
}

func (o *jsonOutput) line(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // the types above are ours, and all can be marshalled
	}
	o.print(append(b, '\n'))
}
