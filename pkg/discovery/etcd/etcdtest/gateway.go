package etcdtest

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"sync"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
)

// A Gateway is a gRPC proxy between clients and a server without TLS. It passes on each
// request and each stream, can refuse them as etcd does, and counts them.
//
// A Gateway is safe for concurrent use.
type Gateway struct {
	listener net.Listener
	target   *grpc.ClientConn

	mu     sync.Mutex // guards what follows
	counts map[string]int
	deaf   bool // to what watches ask
	mute   bool // about what watches are told
	refuse func(method string) error
}

// StartGateway runs a gateway to the server until the test ends.
func StartGateway(tb testing.TB, s *Server) *Gateway {
	tb.Helper()
	listener, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	target, err := grpc.NewClient(s.address(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{})))
	if err != nil {
		_ = listener.Close()
		tb.Fatal(err)
	}
	g := &Gateway{listener: listener, target: target, counts: make(map[string]int)}
	server := grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}), grpc.UnknownServiceHandler(g.pass))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(listener) // ends with Stop
	}()
	tb.Cleanup(func() {
		server.Stop() // waits for the handlers
		<-ended
		_ = target.Close()
	})
	return g
}

// Endpoint returns the URL that reaches the server through the gateway.
func (g *Gateway) Endpoint() string { return "http://" + g.listener.Addr().String() }

// DropProgress makes the gateway drop the watches' questions about their progress, as
// etcd's own proxy does.
func (g *Gateway) DropProgress() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.deaf = true
}

// DropChanges makes the gateway drop etcd's events.
func (g *Gateway) DropChanges() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mute = true
}

// Refuse makes the gateway refuse the methods for which refuse returns an error, such as
// one of package rpctypes. A method's name is like "/etcdserverpb.KV/Range". With nil
// the gateway refuses nothing.
func (g *Gateway) Refuse(refuse func(method string) error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refuse = refuse
}

// Counts returns how often each method was called so far, and under "progress" how often
// a watch asked for its progress.
func (g *Gateway) Counts() map[string]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.counts)
}

func (g *Gateway) begin(method string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.counts[method]++
	if g.refuse == nil {
		return nil
	}
	return g.refuse(method)
}

// pass passes on one request or one stream.
func (g *Gateway) pass(_ any, client grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(client)
	if err := g.begin(method); err != nil {
		return err
	}
	headers, _ := metadata.FromIncomingContext(client.Context())
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(client.Context(), headers))
	server, err := g.target.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		cancel()
		return err
	}
	// It ends with the client's stream, which ends when pass returns.
	go g.passUp(method, client, server)
	defer cancel()
	for {
		var message []byte
		err := server.RecvMsg(&message)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if method == etcdserverpb.Watch_Watch_FullMethodName && g.muted(message) {
			continue
		}
		if err := client.SendMsg(message); err != nil {
			return err
		}
	}
}

func (g *Gateway) passUp(method string, client grpc.ServerStream, server grpc.ClientStream) {
	for {
		var message []byte
		if err := client.RecvMsg(&message); err != nil {
			_ = server.CloseSend() // never fails
			return
		}
		if method == etcdserverpb.Watch_Watch_FullMethodName && g.dropped(message) {
			continue
		}
		if err := server.SendMsg(message); err != nil {
			return // the other direction says why
		}
	}
}

// dropped reports whether to drop a client's message, and counts questions about progress.
func (g *Gateway) dropped(message []byte) bool {
	var request etcdserverpb.WatchRequest
	if decode(message, &request) != nil || request.GetProgressRequest() == nil {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.counts["progress"]++
	return g.deaf
}

// muted reports whether to drop a server's message to a watch.
func (g *Gateway) muted(message []byte) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	var response etcdserverpb.WatchResponse
	return g.mute && decode(message, &response) == nil && len(response.Events) > 0
}

func decode(message []byte, into any) error {
	return encoding.GetCodecV2("proto").Unmarshal(mem.BufferSlice{mem.SliceBuffer(message)}, into)
}

// A rawCodec leaves messages as they are.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(message any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(message.([]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, message any) error {
	*message.(*[]byte) = data.Materialize()
	return nil
}
