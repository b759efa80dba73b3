package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// serving is the worker that serves.
type serving struct {
	side    string
	b       *backend
	servers []server
	wg      sync.WaitGroup
	closing atomic.Bool
}

func (s *serving) do(_ context.Context, o order) (r reply, err error) {
	switch o.Do {
	case "listen":
		for range o.N {
			srv, addr, err := newServer(s.side, s.b)
			if err != nil {
				return r, err
			}
			s.servers = append(s.servers, srv)
			r.Addrs = append(r.Addrs, addr)
			s.wg.Go(func() {
				if err := srv.serve(); err != nil && !s.closing.Load() {
					panic(fmt.Errorf("serving: %w", err)) // nothing can be measured now
				}
			})
		}
	case "usage":
		r.CPU, err = usage()
	case "memory":
		r.Memory, err = memory()
	case "breaks":
		r.Times = s.b.takeBroken()
	default:
		err = fmt.Errorf("a server knows no order %q", o.Do)
	}
	return r, err
}

func (s *serving) close() {
	s.closing.Store(true)
	for _, srv := range s.servers {
		srv.close()
	}
	s.wg.Wait()
}
