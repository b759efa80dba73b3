package signal_test

import (
	"testing"

	"github.com/request-migration/migrate/pkg/internal/signal"
)

func TestSend(t *testing.T) {
	c := make(chan struct{}, 1)
	for range 2 {
		signal.Send(c)
		signal.Send(c) // does not block
		<-c
		if len(c) != 0 {
			t.Error("there are two tokens for two signals, want one")
		}
	}
}
