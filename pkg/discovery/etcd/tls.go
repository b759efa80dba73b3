package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc/credentials"
)

// tls reads the certificates from their files. It returns nil for http endpoints.
func (cfg Config) tls() (*tls.Config, error) {
	if !strings.HasPrefix(cfg.Endpoints[0], "https:") {
		return nil, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("reading the CA's certificate: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("reading the CA's certificate: no certificate in %s", cfg.CAFile)
		}
	}
	if cfg.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("reading the client certificate: %w", err)
		}
		conf.Certificates = []tls.Certificate{cert}
	}
	return conf, nil
}

// rotating reads the certificates again for each connection, so that they can be
// replaced on disk while a store is in use.
type rotating struct {
	credentials.TransportCredentials // from the first reading of the files
	cfg                              Config
}

// ClientHandshake implements [credentials.TransportCredentials].
func (r rotating) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conf, err := r.cfg.tls()
	if err != nil {
		return nil, nil, err
	}
	return credentials.NewTLS(conf).ClientHandshake(ctx, authority, conn)
}

// Clone implements [credentials.TransportCredentials].
func (r rotating) Clone() credentials.TransportCredentials {
	return rotating{r.TransportCredentials.Clone(), r.cfg}
}

// alertTimeout is how long a server may take to refuse this client's certificate
// after the handshake.
const alertTimeout = time.Second

// diagnose returns why a TLS server refuses this client, if it closed the connection
// and gRPC does not know why. Otherwise it returns err.
func diagnose(ctx context.Context, cfg Config, err error) error {
	if !unavailable(err) {
		return err
	}
	conf, confErr := cfg.tls()
	if confErr != nil {
		return confErr
	}
	if conf == nil {
		return err
	}
	for _, endpoint := range cfg.Endpoints {
		if alert := handshake(ctx, endpoint, conf); alert != nil {
			return alert
		}
	}
	return err
}

// hint adds the most likely reason why a server closed the first connection.
func hint(cfg Config, err error) error {
	switch {
	case !unavailable(err) || !closedByPeer(err):
		return err
	case strings.HasPrefix(cfg.Endpoints[0], "https:"):
		return fmt.Errorf("%w (does it want http, without TLS?)", err)
	}
	return fmt.Errorf("%w (does it want https?)", err)
}

// closedByPeer goes by the text, which is all that gRPC passes on.
func closedByPeer(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if strings.HasSuffix(err.Error(), end.Error()) {
			return true
		}
	}
	return false
}

// handshake returns why a TLS server refuses this client, or nil if that can't be
// found out. In TLS 1.3 the server checks the client's certificate after the client
// has finished its handshake. gRPC has begun to send by then, and often sees a broken
// connection in place of the reason.
func handshake(ctx context.Context, endpoint string, conf *tls.Config) error {
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, alertTimeout)
	defer cancel()
	conf = conf.Clone()
	conf.NextProtos = []string{"h2"}
	conn, err := (&tls.Dialer{Config: conf}).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil // gRPC gets this error too
	}
	defer func() { _ = conn.Close() }()
	if end, ok := ctx.Deadline(); ok {
		if err := conn.SetReadDeadline(end); err != nil {
			return nil
		}
	}
	_, err = conn.Read(make([]byte, 1))
	if refusal, ok := errors.AsType[*net.OpError](err); ok && refusal.Op == "remote error" {
		return refusal
	}
	return nil
}
