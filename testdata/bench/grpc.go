package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The types that protoc-gen-go-grpc would use for
//
//	service Backend { rpc Generate(google.protobuf.StringValue) returns (stream google.protobuf.StringValue); }
type (
	message      = wrapperspb.StringValue
	clientStream = grpc.GenericClientStream[message, message]
	serverStream = grpc.GenericServerStream[message, message]
)

const generate = "/bench.Backend/Generate"

// grpcServer is a [grpc.Server] with default options.
type grpcServer struct {
	*grpc.Server
	l net.Listener
}

func newGRPCServer(b *backend, l net.Listener) *grpcServer {
	made := wrapperspb.String(text(b.name))
	s := &grpcServer{grpc.NewServer(), l}
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "bench.Backend",
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{
			StreamName:    "Generate",
			ServerStreams: true,
			Handler: func(_ any, st grpc.ServerStream) error {
				req := new(message)
				if err := st.RecvMsg(req); err != nil {
					return err
				}
				a, err := parseAsk(req.GetValue())
				if err != nil {
					return status.Error(codes.InvalidArgument, err.Error())
				}
				return b.answer(st.Context(), a, grpcSink{made, &serverStream{ServerStream: st}})
			},
		}},
	}, struct{}{})
	return s
}

func (s *grpcServer) serve() error { return s.Serve(s.l) }
func (s *grpcServer) close()       { s.Stop() }

type grpcSink struct {
	made *message
	st   *serverStream
}

func (s grpcSink) plain() error        { return s.st.Send(s.made) }
func (s grpcSink) text(t string) error { return s.st.Send(wrapperspb.String(t)) }

// grpcCaller is a [grpc.ClientConn] with default options. To many servers it
// has the round_robin policy, and opens a stream that broke again.
type grpcCaller struct {
	cc       *grpc.ClientConn
	failover bool
}

func newGRPCCaller(addrs []string) (*grpcCaller, error) {
	plaintext := grpc.WithTransportCredentials(insecure.NewCredentials())
	if len(addrs) == 1 {
		cc, err := grpc.NewClient(addrs[0], plaintext)
		return &grpcCaller{cc: cc}, err
	}
	servers := manual.NewBuilderWithScheme("servers")
	state := resolver.State{}
	for _, addr := range addrs {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: addr})
	}
	servers.InitialState(state)
	cc, err := grpc.NewClient("servers:///all", plaintext, grpc.WithResolvers(servers),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`))
	return &grpcCaller{cc: cc, failover: true}, err
}

func (c *grpcCaller) stream(ctx context.Context, a ask, each func(int, item)) error {
	// The bound is there so that no server means an error, not a loop.
	for tries := 0; ; tries++ {
		err := c.attempt(ctx, a, func(n int, i item) {
			a.from += n
			each(n, i)
		})
		if err == nil || !c.failover || tries == 100 || status.Code(err) != codes.Unavailable {
			return err
		}
	}
}

// attempt opens one stream and hands over its items.
func (c *grpcCaller) attempt(ctx context.Context, a ask, each func(int, item)) error {
	cs, err := c.cc.NewStream(ctx, &grpc.StreamDesc{StreamName: "Generate", ServerStreams: true}, generate)
	if err != nil {
		return err
	}
	st := &clientStream{ClientStream: cs}
	if err := st.SendMsg(wrapperspb.String(a.String())); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("sending the request: %w", err) // after io.EOF, Recv says why
	}
	if err := st.CloseSend(); err != nil {
		return err
	}
	for {
		m, err := st.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		each(1, item{text: m.GetValue()})
	}
}

func (c *grpcCaller) close() error { return c.cc.Close() }
