package stream

import (
	"net"
	"time"
)

// Both ends of a connection notice when the other one is lost, even if they
// have nothing to send. A connection that is silent for keepAliveIdle is probed
// every keepAliveInterval, so a reset by a middlebox is noticed within 4 s. A
// host that answers nothing is given up after lostAfter, by the count of probes
// where there is no TCP_USER_TIMEOUT.
const (
	keepAliveIdle     = 3 * time.Second
	keepAliveInterval = time.Second
	lostAfter         = 10 * time.Second
)

// keepAlive sets that up for TCP, and for TLS over TCP; other connections stay
// as they are.
func keepAlive(conn net.Conn) {
	if over, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = over.NetConn()
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	// Best effort: without it, a lost host is noticed by the timeouts above TCP.
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{
		Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval,
		Count: int((lostAfter - keepAliveIdle) / keepAliveInterval),
	})
	setUserTimeout(tcp, lostAfter)
}
