package kubetest

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"sync/atomic"
	"testing"
)

// An Intercept sees a request before the server does. It returns true if it has answered.
type Intercept func(http.ResponseWriter, *http.Request) bool

// A Proxy is an HTTP proxy before a server, which may answer in its place. It is safe for
// concurrent use.
type Proxy struct {
	// URL is where it listens.
	URL       string
	intercept atomic.Pointer[Intercept]
}

// StartProxy runs a proxy to the server until the test ends.
func StartProxy(tb testing.TB, s *Server) *Proxy {
	tb.Helper()
	target, err := url.Parse(s.URL())
	if err != nil {
		tb.Fatal(err)
	}
	ca, err := os.ReadFile(s.CA.File)
	if err != nil {
		tb.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	certFile, keyFile := s.CA.Issue("127.0.0.1")
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		tb.Fatal(err)
	}
	p := &Proxy{}
	quiet := slog.NewLogLogger(slog.DiscardHandler, 0) // broken connections are what the tests are about
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	forward := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     transport,
		FlushInterval: -1, // watches
		ErrorLog:      quiet,
		ErrorHandler:  func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	front := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if intercept := p.intercept.Load(); intercept != nil && (*intercept)(w, r) {
			return
		}
		forward.ServeHTTP(w, r)
	}))
	front.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	front.EnableHTTP2 = true
	front.Config.ErrorLog = quiet
	front.StartTLS()
	p.URL = front.URL
	tb.Cleanup(func() {
		front.CloseClientConnections()
		front.Close()
		transport.CloseIdleConnections()
	})
	return p
}

// Set makes f see each request from now on; nil passes all on.
func (p *Proxy) Set(f Intercept) {
	if f == nil {
		p.intercept.Store(nil)
		return
	}
	p.intercept.Store(&f)
}
