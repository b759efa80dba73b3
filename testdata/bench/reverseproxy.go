package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
)

// proxying is the worker that is Go's own proxy.
type proxying struct {
	http.Server
	l net.Listener
}

func newProxying(engine string) (*proxying, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	between := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: engine})
	between.FlushInterval = -1 // at once
	between.Transport = &http.Transport{MaxIdleConnsPerHost: 2000}
	p := &proxying{Server: http.Server{Handler: between}, l: l}
	return p, nil
}

func (p *proxying) do(_ context.Context, o order) (r reply, err error) {
	if o.Do != "listen" {
		return r, fmt.Errorf("a proxy knows no order %q", o.Do)
	}
	go func() {
		if err := p.Serve(p.l); !errors.Is(err, http.ErrServerClosed) {
			panic(err) // nothing can be measured now
		}
	}()
	return reply{Addrs: []string{p.l.Addr().String()}}, nil
}

func (p *proxying) close() { p.Close() }
