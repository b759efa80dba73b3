package openai

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

const (
	// keepIdle is how long a connection is kept idle: llama.cpp and uvicorn
	// close theirs after 5 s.
	keepIdle = 3 * time.Second
	// dialTimeout is enough for a network that loses a packet or two.
	dialTimeout = 5 * time.Second
	// maxIdle is how many connections are kept for one engine.
	maxIdle = 256
	// maxHeaderBytes bounds the header of an answer.
	maxHeaderBytes = 256 << 10
)

// client makes requests to one engine.
type client struct {
	kept  *http.Transport // reuses connections
	fresh *http.Transport // dials a connection for each request
}

func newClient(dial func(ctx context.Context, network, address string) (net.Conn, error)) *client {
	if dial == nil {
		dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: dialTimeout}).DialContext
	}
	kept := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dial,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    2 * dialTimeout,
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        keepIdle,
		MaxResponseHeaderBytes: maxHeaderBytes,
		DisableCompression:     true,    // pieces of an answer would wait for each other
		WriteBufferSize:        1 << 10, // for headers: a body passes by it
	}
	fresh := kept.Clone()
	fresh.DisableKeepAlives = true
	return &client{kept: kept, fresh: fresh}
}

func (c *client) close() {
	c.kept.CloseIdleConnections()
	c.fresh.CloseIdleConnections()
}

// do makes a request with that body. A kept connection that turns out to be dead
// before a byte of the answer came is replaced once by a fresh one: net/http does
// so only for requests that change nothing.
func (c *client) do(ctx context.Context, method, url string, header http.Header, body []byte) (*http.Response, error) {
	var reused, answered atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn:              func(info httptrace.GotConnInfo) { reused.Store(info.Reused) },
		GotFirstResponseByte: func() { answered.Store(true) },
	})
	resp, err := roundTrip(traced, c.kept, method, url, header, body)
	if err != nil && reused.Load() && !answered.Load() && ctx.Err() == nil {
		resp, err = roundTrip(ctx, c.fresh, method, url, header, body)
	}
	return resp, err
}

// roundTrip follows no redirect: an engine that answers with one is no engine.
func roundTrip(ctx context.Context, t *http.Transport, method, url string, header http.Header, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("making a request: %w", err)
	}
	req.Header = header.Clone()
	return t.RoundTrip(req)
}

const (
	// lastBytes is how much of a body may follow what was wanted of it, for its
	// connection to be kept.
	lastBytes = 4 << 10
	// lastTime is how long it may take.
	lastTime = time.Second
)

// release reads what is left of a body, of which little is expected, so that its
// connection is kept; cancel ends the request. It does not wait for that.
func (e *Engine) release(body io.ReadCloser, cancel func()) {
	e.lastReads.Go(func() {
		late := time.AfterFunc(lastTime, cancel)
		defer late.Stop()
		defer cancel()
		_, _ = io.CopyN(io.Discard, body, lastBytes) // best effort: without it the connection is closed
		_ = body.Close()                             // it was read, or is of no use
	})
}
