package request

import (
	"context"
	"fmt"
	"strings"

	"github.com/request-migration/migrate/cmd/internal/outlet"
	"github.com/request-migration/migrate/cmd/internal/rustdebug"
	"github.com/request-migration/migrate/cmd/internal/term"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/router/receipt"
	"github.com/request-migration/migrate/pkg/stream"
)

// output prints requests, one after the other.
type output interface {
	// trace returns the functions that print the next request as it goes. ctx is the
	// request's; its end also ends the wait for a reader who does not read.
	trace(ctx context.Context) *router.Trace
	// done prints what comes last, with the same ctx, and waits until all is written.
	done(ctx context.Context, receipt receipt.Receipt, err error)
	// failed returns why nothing can be printed any more, or nil.
	failed() error
}

// outputSummary is the output that shows only the sum of all requests.
const outputSummary = "summary"

func outputNames() []string { return []string{"text", "json", "raw", outputSummary} }

func newOutput(name string, out *outlet.Outlet, resume bool) (output, error) {
	p := &printer{out: out}
	switch name {
	case "text":
		return &textOutput{printer: p}, nil
	case "raw":
		return &rawOutput{printer: p, hold: !resume}, nil
	case "json":
		return &jsonOutput{printer: p}, nil
	}
	return nil, fmt.Errorf("unknown output %q: valid are %s", name, strings.Join(outputNames(), ", "))
}

// printer writes until a write fails, and keeps that error. It writes each item at once.
type printer struct {
	out *outlet.Outlet
	err error
}

func (p *printer) print(ctx context.Context, b []byte) {
	if p.err == nil {
		p.err = p.out.Put(ctx, b)
	}
}

// flush waits until all of it is written.
func (p *printer) flush(ctx context.Context) {
	if p.err == nil {
		p.err = p.out.Flush(ctx)
	}
}

func (p *printer) failed() error { return p.err }

// textOutput prints what the original's client prints.
type textOutput struct {
	*printer
	buf []byte
	any bool // something was printed before
}

func (o *textOutput) trace(ctx context.Context) *router.Trace {
	return &router.Trace{
		Attempt: func(e router.AttemptEvent) {
			if o.any {
				o.print(ctx, []byte("\n"))
			}
			o.any = true
			o.print(ctx, fmt.Appendf(nil, "=== Attempt %d ===\n", e.Attempt))
		},
		Item: func(i router.Item) {
			o.buf = append(appendAnnotated(o.buf[:0], i.Annotated), '\n')
			o.print(ctx, o.buf)
		},
		Break: func(e router.BreakEvent) {
			if e.Kind() == stream.Application {
				return // does not migrate: the command's own error says so
			}
			o.print(ctx, fmt.Appendf(nil, "Error: %v\n", stream.ErrFailed)) // the original says this of every break
			if e.AttemptsLeft > 0 {
				o.print(ctx, []byte("Retrying request...\n"))
			}
		},
	}
}

func (o *textOutput) done(ctx context.Context, _ receipt.Receipt, err error) {
	if err == nil {
		o.print(ctx, []byte("\n=== Success! ===\n"))
	}
	o.flush(ctx)
}

// appendAnnotated appends a as Rust's Debug prints Dynamo's Annotated.
func appendAnnotated(dst []byte, a stream.Annotated) []byte {
	dst = append(dst, "Annotated { data: "...)
	if s, ok := a.Text(); ok {
		dst = appendSome(dst, s)
	} else if len(a.Data) == 0 {
		dst = append(dst, "None"...)
	} else {
		// A character that could act on a terminal is written as JSON may have it, too.
		dst = append(append(append(dst, "Some("...), term.Plain(string(a.Data))...), ')')
	}
	dst = append(dst, ", id: "...)
	dst = appendOption(dst, a.ID)
	dst = append(dst, ", event: "...)
	dst = appendOption(dst, a.Event)
	dst = append(dst, ", comment: "...)
	if len(a.Comment) == 0 {
		return append(dst, "None }"...)
	}
	dst = append(dst, "Some(["...)
	for i, c := range a.Comment {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = rustdebug.Append(dst, c)
	}
	return append(dst, "]) }"...)
}

func appendOption(dst []byte, s string) []byte {
	if s == "" {
		return append(dst, "None"...)
	}
	return appendSome(dst, s)
}

func appendSome(dst []byte, s string) []byte {
	return append(rustdebug.Append(append(dst, "Some("...), s), ')')
}
