//go:build linux

package cmd_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A bed is a network of its own for one test: hosts that reach each other
// through a router. Each of them is a network namespace without a name, which
// ends with this process and what runs in it, so that tests do not affect each other. The
// hosts share the machine's files, such as a file store.
type bed struct {
	*world
	router *host
	hosts  int
}

// A host is a machine of a [bed].
type host struct {
	bed  *bed
	ns   *os.File
	addr string // an IPv4 address
	link string // the router's end of the link to it
}

// port is where servers listen: each has a host for itself.
const port = "4000"

// What a router may do with packets, as iptables targets.
const (
	dropped     = "-j DROP"
	reset       = "-p tcp -j REJECT --reject-with tcp-reset"
	unreachable = "-j REJECT --reject-with icmp-host-unreachable"
	// largeDropped is a path with a smaller MTU than both ends believe, and a firewall
	// that drops the ICMP messages about it. Handshakes and short lines pass.
	largeDropped = "-m length --length 600:65535 -j DROP"
)

// needNetns gives a test up that needs network namespaces where there are none:
// what they take is optional.
func needNetns(t *testing.T) {
	t.Helper()
	giveUp := optional(t)
	if os.Geteuid() != 0 {
		giveUp("network namespaces need root")
	}
	for _, tool := range []string{"ip", "tc", "iptables", "conntrack"} {
		if _, err := exec.LookPath(tool); err != nil {
			giveUp("network namespaces need a tool: %v", err)
		}
	}
	ns, err := newNamespace()
	if err != nil {
		giveUp("%v", err)
	}
	_ = ns.Close()
}

// newBed returns a bed with a router and no host.
func newBed(t *testing.T) *bed {
	t.Helper()
	needNetns(t)
	b := &bed{world: newWorld(t)}
	b.router = b.namespace(t)
	b.router.set(t, "net/ipv4/ip_forward", "1")
	return b
}

// host adds a host. Its one link, eth0, leads to the router.
func (b *bed) host(t *testing.T) *host {
	t.Helper()
	b.hosts++
	h := b.namespace(t)
	h.addr = fmt.Sprintf("10.77.%d.2", b.hosts)
	gateway := fmt.Sprintf("10.77.%d.1", b.hosts)
	h.link = fmt.Sprintf("to%d", b.hosts)
	b.router.run(t, "ip", "link", "add", h.link, "type", "veth", "peer", "name", "eth0", "netns",
		fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), h.ns.Fd()))
	b.router.run(t, "ip", "address", "add", gateway+"/24", "dev", h.link)
	b.router.run(t, "ip", "link", "set", h.link, "up")
	h.run(t, "ip", "link", "set", "lo", "up")
	h.run(t, "ip", "address", "add", h.addr+"/24", "dev", "eth0")
	h.linkUp(t)
	return h
}

func (b *bed) namespace(t *testing.T) *host {
	t.Helper()
	ns, err := newNamespace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() }) // after what was started in it has ended
	return &host{bed: b, ns: ns}
}

// oneWay makes the router treat all packets from one host to another as does says, one of
// the constants above.
func (b *bed) oneWay(t *testing.T, from, to *host, does string) {
	t.Helper()
	b.router.run(t, append([]string{"iptables", "-w", "-I", "FORWARD", "-s", from.addr, "-d", to.addr}, strings.Fields(does)...)...)
}

// bothWays is oneWay in both directions.
func (b *bed) bothWays(t *testing.T, one, other *host, does string) {
	t.Helper()
	b.oneWay(t, one, other, does)
	b.oneWay(t, other, one, does)
}

// heal undoes oneWay and bothWays.
func (b *bed) heal(t *testing.T) {
	t.Helper()
	b.router.run(t, "iptables", "-w", "-F", "FORWARD")
}

// hide makes the router translate the addresses of a host, as the router of a home or a
// cloud does: it silently drops packets of connections whose beginning it has not seen.
func (b *bed) hide(t *testing.T, h *host) {
	t.Helper()
	b.router.set(t, "net/netfilter/nf_conntrack_tcp_loose", "0")
	b.router.run(t, "iptables", "-w", "-t", "nat", "-A", "POSTROUTING", "-s", h.addr, "-j", "MASQUERADE")
	b.router.run(t, "iptables", "-w", "-A", "FORWARD", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")
	b.router.run(t, "iptables", "-w", "-A", "INPUT", "-j", "DROP")
}

// forget makes the router forget all connections.
func (b *bed) forget(t *testing.T) {
	t.Helper()
	b.router.run(t, "conntrack", "-F")
}

// linkDown pulls the host's cable.
func (h *host) linkDown(t *testing.T) {
	t.Helper()
	h.run(t, "ip", "link", "set", "eth0", "down")
}

// linkUp plugs the cable in.
func (h *host) linkUp(t *testing.T) {
	t.Helper()
	h.run(t, "ip", "link", "set", "eth0", "up")
	h.run(t, "ip", "route", "add", "default", "via", strings.TrimSuffix(h.addr, "2")+"1")
}

// slow limits the host's link to rate, in tc's notation, in each direction. The link's
// queue drops nothing of a sender with [host.smallSendBuffer]: after a drop, TCP may pause
// for longer than the bounds under test.
func (h *host) slow(t *testing.T, rate string) {
	t.Helper()
	shape := []string{"root", "tbf", "rate", rate, "burst", "10k", "latency", "4s"}
	h.run(t, append([]string{"tc", "qdisc", "add", "dev", "eth0"}, shape...)...)
	h.bed.router.run(t, append([]string{"tc", "qdisc", "add", "dev", h.link}, shape...)...)
}

// smallSendBuffer bounds what each of the host's connections has under way to 32 KiB.
func (h *host) smallSendBuffer(t *testing.T) {
	t.Helper()
	h.set(t, "net/ipv4/tcp_wmem", "4096 16384 32768")
}

// addressGone takes the host's address away.
func (h *host) addressGone(t *testing.T) {
	t.Helper()
	h.run(t, "ip", "address", "flush", "dev", "eth0")
}

// run runs a command in the host, which must succeed.
func (h *host) run(t *testing.T, args ...string) {
	t.Helper()
	err := h.inside(func() error {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%v: %w: %s", args, err, out)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// set sets one of the kernel's variables.
func (h *host) set(t *testing.T, name, value string) {
	t.Helper()
	if err := h.inside(func() error { return os.WriteFile("/proc/sys/"+name, []byte(value), 0) }); err != nil {
		t.Fatal(err)
	}
}

// start starts a command in the host, see [world.start].
func (h *host) start(t *testing.T, stdin io.Reader, args ...string) (p *process) {
	t.Helper()
	err := h.inside(func() error {
		p = h.bed.start(t, stdin, args...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// serve starts a server in the host, see [world.serve].
func (h *host) serve(t *testing.T, name string, flags ...string) {
	t.Helper()
	err := h.inside(func() error {
		h.bed.serve(t, name, append([]string{"--listen", h.at(port)}, flags...)...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// listen listens in the host, for this process. The listener ends with the test.
func (h *host) listen(t *testing.T, port string) (l net.Listener) {
	t.Helper()
	err := h.inside(func() (err error) {
		l, err = net.Listen("tcp", h.at(port))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// dial connects this process from the host to addr, which is an IP address and
// a port.
func (h *host) dial(ctx context.Context, addr string) (conn net.Conn, err error) {
	err = h.inside(func() (err error) {
		var d net.Dialer
		conn, err = d.DialContext(ctx, "tcp", addr)
		return err
	})
	return conn, err
}

// inside calls f on a thread that is in the host's namespace. Sockets that f
// opens and commands that it starts are in it from then on; goroutines are not.
func (h *host) inside(f func() error) error {
	return onOwnThread(func() error {
		if err := unix.Setns(int(h.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("entering a network namespace: %w", err)
		}
		return f()
	})
}

// newNamespace returns a network namespace that lasts until the file is closed
// and all that runs in it has ended.
func newNamespace() (ns *os.File, err error) {
	err = onOwnThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("making a network namespace: %w", err)
		}
		ns, err = threadNamespace()
		return err
	})
	return ns, err
}

// onOwnThread calls f, which may change the thread's network namespace.
func onOwnThread(f func() error) error {
	runtime.LockOSThread()
	own, err := threadNamespace()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() {
		// A thread that cannot return stays locked, and ends with its goroutine.
		if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		_ = own.Close()
	}()
	return f()
}

func threadNamespace() (*os.File, error) { return os.Open("/proc/thread-self/ns/net") }
