package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/request-migration/migrate/pkg/stream"
)

// The sides of the comparison.
const (
	ours   = "migrate"
	theirs = "gRPC"
	raw    = "raw TCP"
)

// caller is the client of a side. Its methods are safe for concurrent use.
type caller interface {
	// stream sends a request and hands over each item as it comes: each has how
	// many came, which is 1 but for raw TCP, and the last of them. It returns
	// nil if the answer is complete.
	stream(ctx context.Context, a ask, each func(n int, last item)) error
	// close ends the connections.
	close() error
}

// dialing makes the caller of a side: to one server, or with failover to many.
func dialing(side string, addrs []string) (caller, error) {
	switch {
	case side == openAI:
		return newChatCaller(addrs[0]), nil
	case side == ours && len(addrs) == 1:
		return newOursCaller(addrs[0]), nil
	case side == ours:
		return newRouterCaller(addrs), nil
	case side == theirs:
		return newGRPCCaller(addrs)
	case side == raw:
		return newRawCaller(addrs)
	}
	return nil, fmt.Errorf("no side is called %q", side)
}

// item is one item as a side's client hands it over: the message of gRPC is a
// string, ours the JSON value of one.
type item struct {
	data json.RawMessage
	text string
}

// Text returns the string that the item is.
func (i item) Text() string {
	if i.data == nil {
		return i.text
	}
	s, _ := stream.Annotated{Data: i.data}.Text()
	return s
}

// read makes one request and checks its answer: the number of the items, and
// the last of them.
func read(ctx context.Context, c caller, a ask) error {
	n := 0
	var last item
	if err := c.stream(ctx, a, func(more int, i item) { n, last = n+more, i }); err != nil {
		return err
	}
	if n != a.items {
		return fmt.Errorf("%d items came, want %d", n, a.items)
	}
	if got, want := last.Text(), text("server1"); got != want {
		return fmt.Errorf("the last item is %q, want %q", got, want)
	}
	return nil
}

// server is the server of a side, on one listener.
type server interface {
	// serve answers until close is called.
	serve() error
	close()
}

// newServer returns the server of a side, which listens already, and its address.
func newServer(side string, b *backend) (server, string, error) {
	l, err := b.listen()
	if err != nil {
		return nil, "", fmt.Errorf("listening: %w", err)
	}
	addr := l.Addr().String()
	switch side {
	case ours:
		return newOursServer(b, l), addr, nil
	case theirs:
		return newGRPCServer(b, l), addr, nil
	case raw:
		return newRawServer(b, l), addr, nil
	case openAI:
		return newChatServer(b, l), addr, nil
	}
	l.Close()
	return nil, "", errors.New("no side is called " + side)
}
