package gateway

import (
	"encoding/json"
	"slices"
	"time"
)

// A Migration is the moment at which an answer went on at another instance.
type Migration struct {
	Request string    `json:"request,omitempty"`
	From    string    `json:"from"` // names of instances
	To      string    `json:"to"`
	Item    int       `json:"item"`   // the first that the new instance gave
	GapMS   int64     `json:"gap_ms"` // from the last item before
	Kind    string    `json:"kind"`   // of the break
	Way     string    `json:"way"`
	At      time.Time `json:"at,omitzero"`
}

// json returns what a client is told of it.
func (m Migration) json() json.RawMessage {
	m.Request, m.At = "", time.Time{}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err) // every value of this type can be marshalled
	}
	return b
}

// An Entry is what is known of a request when it is over: a line of the access log. It has
// nothing of what was asked and answered.
type Entry struct {
	Time     time.Time `json:"time"` // when it came
	ID       string    `json:"id"`
	Key      string    `json:"key,omitempty"` // the name of the client's key
	Path     string    `json:"path"`
	Asked    string    `json:"asked"` // the model, as the client calls it
	Model    string    `json:"model"` // that answered last
	Streamed bool      `json:"streamed"`
	// Status is what the client was told, or would have been, had it not had a part of the
	// answer by then; 499 if it left.
	Status int    `json:"status"`
	Error  string `json:"error,omitempty"`
	// Instances gave something, in order, by name.
	Instances  []string    `json:"instances"`
	Attempts   int         `json:"attempts"` // instances asked
	Fallbacks  int         `json:"fallbacks,omitempty"`
	Migrations []Migration `json:"migrations,omitempty"`
	// TokensIn and TokensOut are those of the question and of the answer, 0 where nobody has
	// counted; Wasted those that engines wrote and nobody got.
	TokensIn  int `json:"tokens_in"`
	TokensOut int `json:"tokens_out"`
	Wasted    int `json:"tokens_thrown_away"`
	// FirstItem is the time to the first item, 0 if none came, and Took that to the end.
	FirstItem time.Duration `json:"first_item_ns"`
	Took      time.Duration `json:"took_ns"`

	began time.Time
}

// serve notes that an instance has given something.
func (e *Entry) serve(name string) {
	if n := len(e.Instances); n == 0 || e.Instances[n-1] != name {
		e.Instances = append(e.Instances, name)
	}
}

// took takes the tokens of an answer.
func (e *Entry) took(a *answer) {
	e.TokensIn, e.TokensOut = a.prompt, a.tokens
	if in, ok := a.usage.Int("prompt_tokens"); ok {
		e.TokensIn = in
	}
	if out, ok := a.usage.Int("completion_tokens"); ok {
		e.TokensOut = out
	}
}

func (e *Entry) fail(err *apiError) { e.Status, e.Error = err.status, err.message }

// clone returns a copy that shares nothing.
func (e *Entry) clone() Entry {
	c := *e
	c.Instances, c.Migrations = slices.Clone(e.Instances), slices.Clone(e.Migrations)
	return c
}
