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

// tls returns what the files say now, nil when the endpoints do without.
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

// rotating are credentials that are read again for each connection, so that
// certificates may be replaced on disk while a store is in use.
type rotating struct {
	credentials.TransportCredentials // of the files as they were first
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

// alertTimeout is how long a server that refuses a certificate may take to say
// so once the handshake is done.
const alertTimeout = time.Second

// diagnose returns what a TLS server has against this client, if it closed the
// connection without gRPC's learning why, and otherwise err.
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

// hint adds what a first connection that the server closed is most likely about.
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

// handshake returns what a TLS server has against this client, or nil if that
// can't be found out. TLS 1.3 checks a client's certificate after the client
// thinks that all is well; gRPC, which has begun to send, then often sees a
// broken connection in place of the reason.
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
		return nil // gRPC has seen this too
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
