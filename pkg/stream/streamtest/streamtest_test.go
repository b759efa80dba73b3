package streamtest_test

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/stream/streamtest"
)

// Nobody answers where nobody listens, before a listener and after it.
func TestRefused(t *testing.T) {
	var network streamtest.Network
	refused := func() {
		t.Helper()
		if _, err := network.Dial(t.Context(), "a:1"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("Dial returned %v, want that it is refused", err)
		}
	}
	refused()
	l := network.Listen("a:1")
	if l.Addr().String() != "a:1" {
		t.Errorf("its address is %v", l.Addr())
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	refused()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept returned %v, want that it is closed", err)
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the second Close returned %v", err)
	}
	network.Listen("a:1")
	defer func() {
		if recover() == nil {
			t.Error("two listen at one address")
		}
	}()
	network.Listen("a:1")
}

// A listener that accepts nobody keeps Dial waiting until its context ends.
func TestDialHeedsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var network streamtest.Network
		network.Listen("a:1")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := network.Dial(ctx, "a:1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Dial returned %v", err)
		}
	})
}

// What one end writes the other reads, and a listener that closes leaves connections alone.
func TestConnection(t *testing.T) {
	var network streamtest.Network
	l := network.Listen("a:1")
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- c
	}()
	near, err := network.Dial(t.Context(), "a:1")
	if err != nil {
		t.Fatal(err)
	}
	far := <-accepted
	if near.RemoteAddr().String() != "a:1" || far.LocalAddr().String() != "a:1" {
		t.Errorf("the addresses are %v and %v", near.RemoteAddr(), far.LocalAddr())
	}
	_ = l.Close()
	go func() {
		_, _ = io.WriteString(near, "hello")
		near.Close()
	}()
	if got, err := io.ReadAll(far); string(got) != "hello" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}
