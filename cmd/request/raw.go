package request

import (
	"bytes"
	"context"
	"encoding/json"

	"github.com/request-migration/migrate/cmd/internal/backend"
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
	last byte // of what was printed of the answer; 0: nothing was
}

func (o *rawOutput) trace(ctx context.Context) *router.Trace {
	return &router.Trace{
		Attempt: func(router.AttemptEvent) { o.held = o.held[:0] },
		Item: func(i router.Item) {
			if o.hold {
				o.held = append(o.held, rawItem(i)...)
			} else if text := rawItem(i); text != "" {
				o.print(ctx, []byte(text))
				o.last = text[len(text)-1]
			}
		},
	}
}

func (o *rawOutput) done(ctx context.Context, _ receipt.Receipt, err error) {
	if err == nil {
		o.print(ctx, o.held)
		if n := len(o.held); n > 0 {
			o.last = o.held[n-1]
		}
	}
	// What came ends with a line, also of an answer that broke.
	if (err == nil || o.last != 0) && o.last != '\n' {
		o.print(ctx, []byte{'\n'})
	}
	o.last = 0
	o.flush(ctx)
}

// rawItem is what an item contributes to the answer. A remark about the answer, which
// has an event, contributes nothing.
func rawItem(i router.Item) string {
	if i.Event != "" {
		return ""
	}
	if engine := i.Peer.Engine; engine == "" || engine == backend.Echo {
		if char, ok := stream.Echoed(i.Annotated); ok {
			return char
		}
	}
	if s, ok := i.Content(); ok {
		return s
	}
	var compact bytes.Buffer
	if json.Compact(&compact, i.Data) != nil {
		return string(i.Data)
	}
	return compact.String()
}
