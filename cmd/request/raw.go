package request

import (
	"context"

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
	if char, ok := stream.Echoed(a); ok {
		return char
	}
	if s, ok := a.Text(); ok {
		return s
	}
	return string(a.Data)
}
