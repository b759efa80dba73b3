package router_test

import (
	"context"
	"fmt"
	"net"
	"strings"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/stream"
	"github.com/request-migration/migrate/pkg/stream/fault"
)

// sendWords sends the words of a text, less the first from.
func sendWords(text string, from int, send func(stream.Annotated) error) error {
	for _, word := range strings.Fields(text)[from:] {
		if err := send(stream.Annotated{Data: stream.String(word + " ")}); err != nil {
			return err
		}
	}
	return nil
}

// byIndex can begin at any word: every server gives the same ones.
func byIndex(_ context.Context, req *stream.Request, send func(stream.Annotated) error) error {
	return sendWords("to be or not to be", req.From, send)
}

// byPrefix goes on behind the words that it is given, whatever they are.
func byPrefix(_ context.Context, req *stream.Request, send func(stream.Annotated) error) error {
	if len(req.Prefix) != req.From {
		return stream.ErrUnresumable
	}
	var last string
	for _, item := range req.Prefix {
		last, _ = item.Text()
	}
	switch last {
	case "":
		return sendWords("to be or not to be", 0, send)
	case "be ":
		return sendWords("and what then", 0, send)
	}
	return sendWords("go on", 0, send)
}

// fromTheFirst can do neither.
func fromTheFirst(_ context.Context, req *stream.Request, send func(stream.Annotated) error) error {
	if req.From > 0 {
		return stream.ErrUnresumable
	}
	return sendWords("to be or not to be", 0, send)
}

// start starts a server, which breaks the requests of mode after two items.
func start(id discovery.InstanceID, h stream.Handler, resume discovery.Resume, mode fault.Mode) discovery.Instance {
	faulty := fault.Inject(h, fault.Fault{Mode: mode, After: 2})
	server := &stream.Server{Handler: faulty.Handle, Resumes: resume != discovery.ResumeNo}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() { _ = server.Serve(l) }() // for as long as the example runs
	return discovery.Instance{ID: id, Name: fmt.Sprintf("server%d", id), Transport: discovery.NDJSON, Address: l.Addr().String(), Resume: resume}
}

// An answer that breaks is carried on as the handlers can: from the word that is
// missing, behind the words so far, or from the first word, of which the caller gets
// what is new.
func Example_waysToResume() {
	client := &stream.Client{}
	defer client.Close()
	for _, engine := range []struct {
		handler stream.Handler
		resume  discovery.Resume
	}{
		{byIndex, discovery.ResumeIndex}, {byPrefix, discovery.ResumePrefix}, {fromTheFirst, discovery.ResumeNo},
	} {
		r := router.New(router.Config{
			Source: discovery.Static(
				start(1, engine.handler, engine.resume, fault.Always),
				start(2, engine.handler, engine.resume, fault.Never),
			),
			Client: router.StreamClient(client),
		})
		way := ""
		req := router.Request{Data: stream.String("how?"), Instance: "server1", Trace: &router.Trace{
			Chosen: func(e router.ChosenEvent) { way = string(e.Way) },
		}}
		for item, err := range r.Do(context.Background(), req) {
			if err != nil {
				fmt.Println(err)
				break
			}
			text, _ := item.Text()
			fmt.Print(text)
		}
		fmt.Printf("(%s)\n", way)
		r.Close()
	}
	// Output:
	// to be or not to be (index)
	// to be and what then (prefix)
	// to be or not to be (replay)
}
