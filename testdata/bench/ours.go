package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/stream"
)

// oursServer is a [stream.Server] as it comes.
type oursServer struct {
	stream.Server
	l net.Listener
}

func newOursServer(b *backend, l net.Listener) *oursServer {
	made := stream.String(text(b.name))
	s := &oursServer{l: l}
	s.Resumes = true
	s.Handler = func(ctx context.Context, req *stream.Request, send func(stream.Annotated) error) error {
		a, err := oursAsk(req)
		if err != nil {
			return err
		}
		return b.answer(ctx, a, oursSink{made, send})
	}
	return s
}

// oursAsk is apart from the handler, which then needs little stack.
func oursAsk(req *stream.Request) (ask, error) {
	question, _ := req.Text()
	a, err := parseAsk(question)
	a.from = req.From
	return a, err
}

func (s *oursServer) serve() error { return s.Serve(s.l) }
func (s *oursServer) close()       { s.Close() }

type oursSink struct {
	made []byte
	send func(stream.Annotated) error
}

func (s oursSink) plain() error        { return s.send(stream.Annotated{Data: s.made}) }
func (s oursSink) text(t string) error { return s.send(stream.Annotated{Data: stream.String(t)}) }

// oursCaller is a [stream.Client] as it comes.
type oursCaller struct {
	client stream.Client
	addr   string
}

func newOursCaller(addr string) *oursCaller { return &oursCaller{addr: addr} }

func (c *oursCaller) stream(ctx context.Context, a ask, each func(int, item)) error {
	req := stream.Request{ID: "b1946ac9", Data: stream.String(a.String()), From: a.from}
	for got, err := range c.client.Stream(ctx, c.addr, req) {
		if err != nil {
			return err
		}
		each(1, item{data: got.Data})
	}
	return nil
}

func (c *oursCaller) close() error {
	c.client.Close()
	return nil
}

// routerCaller is a [router.Router] that resumes, over a [stream.Client].
type routerCaller struct {
	client stream.Client
	router *router.Router
}

func newRouterCaller(addrs []string) *routerCaller {
	c := &routerCaller{}
	endpoint := discovery.Endpoint{Namespace: "dynamo", Component: "backend", Name: "generate"}
	instances := make([]discovery.Instance, len(addrs))
	for i, addr := range addrs {
		instances[i] = discovery.Instance{
			ID: discovery.InstanceID(i + 1), Name: fmt.Sprintf("server%d", i+1),
			Endpoint: endpoint, Transport: discovery.NDJSON, Address: addr,
		}
	}
	c.router = router.New(router.Config{
		Endpoint: endpoint,
		Source:   discovery.Static(instances...),
		Client:   router.StreamClient(&c.client),
		Picker:   router.RoundRobin(),
		// So that the next trial finds both servers again.
		Cooldown: time.Millisecond,
		Wait:     time.Second,
	})
	return c
}

func (c *routerCaller) stream(ctx context.Context, a ask, each func(int, item)) error {
	req := router.Request{ID: "b1946ac9", Data: stream.String(a.String())}
	for got, err := range c.router.Do(ctx, req) {
		if err != nil {
			return err
		}
		each(1, item{data: got.Data})
	}
	return nil
}

func (c *routerCaller) close() error {
	c.client.Close()
	c.router.Close()
	return nil
}
