package stream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// The fixed parts of an item of [Echo]: "from server: NAME, data: C".
const (
	echoName = "from server: "
	echoData = ", data: "
)

// Echo returns the handler of Dynamo's example. It answers a string with one
// item for each Unicode character, "from server: NAME, data: C", and waits
// delay between items. It can start at every item ([Server.Resumes]), and
// returns [ErrUnresumable] beyond the end.
func Echo(name string, delay time.Duration) Handler {
	begin := appendString(nil, echoName+name+echoData)
	begin = begin[:len(begin)-1] // without the closing quote
	return func(ctx context.Context, req *Request, send func(Annotated) error) error {
		s, err := toEcho(req)
		if err != nil {
			return err
		}
		pause := pauser{d: delay}
		var item []byte
		for i, r := range s {
			if i > 0 {
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

// Echoed returns the character in an item of [Echo], and whether a is such an
// item.
func Echoed(a Annotated) (char string, ok bool) {
	s, ok := a.Text()
	if !ok || !strings.HasPrefix(s, echoName) {
		return "", false
	}
	i := strings.LastIndex(s, echoData) // a name may contain it, a character can't
	if i < 0 {
		return "", false
	}
	return s[i+len(echoData):], true
}

// toEcho returns the part of the request's string that is to be sent.
func toEcho(req *Request) (string, error) {
	s, ok := req.Text()
	if !ok {
		return "", errors.New("data is not a string, which is what this server echoes")
	}
	n := 0
	for i := range s {
		if n == req.From {
			return s[i:], nil
		}
		n++
	}
	if req.From > n {
		return "", &refusal{ErrUnresumable, fmt.Sprintf("cannot start at item %d: the answer has %d", req.From, n)}
	}
	return "", nil
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
