package stream

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
)

// Echo returns the handler of Dynamo's example: it answers a string with one
// item a Unicode character, each of which reads
//
//	from server: NAME, data: C
//
// It starts at any item ([Server.Resumes]). It waits delay between items.
func Echo(name string, delay time.Duration) Handler {
	begin := appendString(nil, "from server: "+name+", data: ")
	begin = begin[:len(begin)-1] // the string goes on
	return func(ctx context.Context, req Request, send func(Annotated) error) error {
		s, ok := req.Text()
		if !ok {
			return errors.New("data is not a string, which is what this server echoes")
		}
		if n := utf8.RuneCountInString(s); req.From > n {
			return fmt.Errorf("cannot start at item %d: the answer has %d", req.From, n)
		}
		pause := pauser{d: delay}
		item, i := make([]byte, 0, len(begin)+8), -1
		for _, r := range s {
			if i++; i < req.From {
				continue
			}
			if i > req.From {
				if err := pause.wait(ctx); err != nil {
					return err
				}
			}
			item = append(appendRune(append(item[:0], begin...), r), '"')
			if err := send(Annotated{Data: item}); err != nil {
				return err
			}
		}
		return nil
	}
}

// pauser waits for the same time again and again.
type pauser struct {
	d time.Duration
	t *time.Timer
}

func (p *pauser) wait(ctx context.Context) error {
	switch {
	case p.d <= 0:
		return ctx.Err()
	case p.t == nil:
		p.t = time.NewTimer(p.d)
	default:
		p.t.Reset(p.d)
	}
	select {
	case <-p.t.C:
		return nil
	case <-ctx.Done():
		p.t.Stop()
		return ctx.Err()
	}
}
