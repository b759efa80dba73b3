package streamtest_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/request-migration/migrate/pkg/stream"
	"github.com/request-migration/migrate/pkg/stream/streamtest"
)

// A handler of one's own, a server and a client, without a socket.
func Example() {
	words := func(_ context.Context, req *stream.Request, send func(stream.Annotated) error) error {
		text, _ := req.Text()
		for word := range strings.FieldsSeq(text) {
			if err := send(stream.Annotated{Data: stream.String(word)}); err != nil {
				return err
			}
		}
		return nil
	}
	var network streamtest.Network
	server := &stream.Server{Handler: words}
	defer server.Close()
	go server.Serve(network.Listen("a:1"))

	client := &stream.Client{Dial: network.Dial}
	defer client.Close()
	for item, err := range client.Stream(context.Background(), "a:1", stream.Request{Data: stream.String("from word to word")}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		word, _ := item.Text()
		fmt.Println(word)
	}
	// Output:
	// from
	// word
	// to
	// word
}
