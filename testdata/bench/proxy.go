package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// The sides that stand between an OpenAI client and its engine, but for ours.
const (
	direct       = "direct" // nothing stands there
	nginx        = "nginx"
	reverseProxy = "ReverseProxy"
	serveBetween = "migrate with serve" // and a store
	liteLLM      = "LiteLLM"
)

// installed returns those of the sides that this machine has.
func installed(sides ...string) (there []string) {
	for _, side := range sides {
		program := map[string]string{nginx: "nginx", liteLLM: "litellm"}[side]
		if _, err := exec.LookPath(program); program == "" || err == nil {
			there = append(there, side)
		}
	}
	return there
}

// proxy is the processes between a client and its engines.
type proxy struct {
	addr    string
	cmds    []*exec.Cmd
	inside  *child // of this program; nil if it is another
	scratch string
}

// startProxy starts what a side has between a client and the engines at addrs, and
// returns when a request has come through.
func (b *bench) startProxy(ctx context.Context, side string, addrs []string) (p *proxy, err error) {
	p = &proxy{addr: addrs[0]}
	if side == direct {
		return p, nil
	}
	if p.scratch, err = os.MkdirTemp(b.scratch, "proxy-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("starting %s: %w", side, err), p.close())
		}
	}()
	if side == reverseProxy {
		if p.inside, err = b.spawn(ctx, "proxy", side, "proxy", addrs[0]); err != nil {
			return nil, err
		}
		r, err := p.inside.do(order{Do: "listen"})
		if err != nil {
			return nil, err
		}
		p.addr = r.Addrs[0]
		return p, p.ready(ctx)
	}
	if p.addr, err = freeAddress(ctx); err != nil {
		return nil, err
	}
	switch side {
	case nginx:
		err = p.nginx(ctx, addrs[0])
	case liteLLM:
		err = p.liteLLM(ctx, addrs[0])
	case ours:
		args := []string{"gateway", "--listen", p.addr, "--router", "round-robin", "--cooldown", "1ms"}
		for n, addr := range addrs {
			args = append(args, "--engine", fmt.Sprintf("engine%d=http://%s", n, addr))
		}
		err = p.migrate(ctx, b, args...)
	case serveBetween:
		store := []string{"--store-kv", "file", "--file-kv", filepath.Join(p.scratch, "store")}
		for _, addr := range addrs {
			err = errors.Join(err, p.migrate(ctx, b, append(store, "serve", "--openai", "http://"+addr)...))
		}
		err = errors.Join(err, p.migrate(ctx, b, append(store, "gateway", "--listen", p.addr, "--router", "round-robin", "--cooldown", "1ms")...))
	}
	if err != nil {
		return nil, err
	}
	return p, p.ready(ctx)
}

// freeAddress returns an address that was free just now.
func freeAddress(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// start starts a program. It says something only if it is not ready in time.
func (p *proxy) start(ctx context.Context, name string, args ...string) error {
	said, err := os.Create(filepath.Join(p.scratch, fmt.Sprintf("said%d", len(p.cmds))))
	if err != nil {
		return err
	}
	defer said.Close()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = said, said, p.scratch
	cmd.Env = append(cmd.Environ(), "LITELLM_MASTER_KEY="+chatKey, "LITELLM_LOCAL_MODEL_COST_MAP=True")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // nginx's workers end with it
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		return err
	}
	p.cmds = append(p.cmds, cmd)
	return nil
}

func (p *proxy) migrate(ctx context.Context, b *bench, args ...string) error {
	program, err := b.build(ctx, "migrate", "../..")
	if err != nil {
		return err
	}
	return p.start(ctx, program, append([]string{"--log", "warn"}, args...)...)
}

func (p *proxy) nginx(ctx context.Context, engine string) error {
	conf := filepath.Join(p.scratch, "nginx.conf")
	err := os.WriteFile(conf, fmt.Appendf(nil, `daemon off; worker_processes auto; pid %s/nginx.pid; error_log stderr crit;
events { worker_connections 4096; }
http {
	access_log off;
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
	upstream engine { server %s; keepalive 512; }
	server {
		listen %s;
		location / { proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }
	}
}
`, p.scratch, engine, p.addr), 0o600)
	if err != nil {
		return err
	}
	return p.start(ctx, "nginx", "-c", conf, "-p", p.scratch, "-e", "stderr")
}

func (p *proxy) liteLLM(ctx context.Context, engine string) error {
	conf := filepath.Join(p.scratch, "litellm.yaml")
	err := os.WriteFile(conf, fmt.Appendf(nil, `model_list:
- model_name: %s
  litellm_params: {model: openai/%[1]s, api_base: "http://%s/v1", api_key: none}
`, chatModel, engine), 0o600)
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(p.addr)
	if err != nil {
		return err
	}
	return p.start(ctx, "litellm", "--config", conf, "--host", "127.0.0.1", "--port", port, "--telemetry", "False")
}

// ready waits until a request comes through.
func (p *proxy) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*callTimeout)
	defer cancel()
	c := newChatCaller(p.addr)
	defer c.close()
	for {
		err := read(ctx, c, ask{items: 1, mode: plain})
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no request comes through: %w\n%s", err, p.said())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// said returns what the programs have said.
func (p *proxy) said() string {
	var all strings.Builder
	for n := range p.cmds {
		b, err := os.ReadFile(filepath.Join(p.scratch, fmt.Sprintf("said%d", n)))
		fmt.Fprintf(&all, "%s", b)
		if err != nil {
			fmt.Fprintln(&all, err)
		}
	}
	return all.String()
}

// close ends the processes.
func (p *proxy) close() error {
	var err error
	if p.inside != nil {
		err = p.inside.close()
	}
	for _, cmd := range p.cmds {
		for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} { // migrate drains at the first
			_ = cmd.Process.Signal(sig) // or it has just ended
			time.Sleep(50 * time.Millisecond)
		}
		late := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // how it ends says nothing of what was measured
		late.Stop()
	}
	if p.scratch != "" {
		err = errors.Join(err, os.RemoveAll(p.scratch))
	}
	return err
}
