package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"syscall"
	"time"
)

// alertTimeout is how long a server that refuses a certificate may take to say
// so once the handshake is done.
const alertTimeout = time.Second

// diagnose returns a clearer error for a first connection that the server
// closed without gRPC's learning why, and otherwise err.
func diagnose(ctx context.Context, cfg Config, tlsConfig *tls.Config, err error) error {
	if !unavailable(err) {
		return err
	}
	if tlsConfig == nil {
		if closedByPeer(err) {
			return fmt.Errorf("%w (does it want https?)", err)
		}
		return err
	}
	for _, endpoint := range cfg.Endpoints {
		if alert := handshake(ctx, endpoint, tlsConfig); alert != nil {
			return alert
		}
	}
	if closedByPeer(err) {
		return fmt.Errorf("%w (does it want http, without TLS?)", err)
	}
	return err
}

// closedByPeer goes by the text, which is all that gRPC passes on.
func closedByPeer(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if n := len(err.Error()) - len(end.Error()); n >= 0 && err.Error()[n:] == end.Error() {
			return true
		}
	}
	return false
}

// handshake returns what a TLS server has against this client, or nil if that
// can't be found out. TLS 1.3 checks a client's certificate after the client
// thinks that all is well; gRPC, which has begun to send, then often sees a
// broken connection in place of the reason.
func handshake(ctx context.Context, endpoint string, tlsConfig *tls.Config) error {
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil
	}
	tlsConfig = tlsConfig.Clone()
	tlsConfig.NextProtos = []string{"h2"}
	conn, err := (&tls.Dialer{Config: tlsConfig}).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil // gRPC has seen this too
	}
	defer func() { _ = conn.Close() }()
	end := time.Now().Add(alertTimeout)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(end) {
		end = deadline
	}
	if err := conn.SetReadDeadline(end); err != nil {
		return nil
	}
	_, err = conn.Read(make([]byte, 1))
	if refusal, ok := errors.AsType[*net.OpError](err); ok && refusal.Op == "remote error" {
		return refusal
	}
	return nil
}
