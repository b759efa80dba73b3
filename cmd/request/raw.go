package request

import (
	"context"
	"strings"

	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/router/receipt"
	"github.com/request-migration/migrate/pkg/stream"
)

// rawOutput prints the answer alone, each item once. When attempts begin anew
// it holds back until one has succeeded, since what it has printed it can't
// take back.
type rawOutput struct {
	*printer
	hold bool
	held []byte
	part bool // of an answer was printed
}

func (o *rawOutput) trace(ctx context.Context) *router.Trace {
	return &router.Trace{
		Attempt: func(router.AttemptEvent) { o.held = o.held[:0] },
		Item: func(i router.Item) {
			if o.hold {
				o.held = append(o.held, rawItem(i.Annotated)...)
			} else {
				o.print(ctx, []byte(rawItem(i.Annotated)))
				o.part = true
			}
		},
	}
}

func (o *rawOutput) done(ctx context.Context, _ receipt.Receipt, err error) {
	if err == nil {
		o.print(ctx, append(o.held, '\n'))
	} else if o.part {
		o.print(ctx, []byte{'\n'}) // what came is there, on a line of its own
	}
	o.part = false
	o.flush(ctx)
}

// rawItem is what an item contributes to the answer: of the echo handler's
// items the character, of others all.
func rawItem(a stream.Annotated) string {
	s, ok := a.Text()
	if !ok {
		return string(a.Data)
	}
	if strings.HasPrefix(s, "from server: ") {
		const field = ", data: "
		// The last one: a name may have it too, a character can't.
		if i := strings.LastIndex(s, field); i >= 0 {
			return s[i+len(field):]
		}
	}
	return s
}
