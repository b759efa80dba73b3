package cli

import (
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestSecondSignal tells a second signal from the first one delivered twice.
func TestSecondSignal(t *testing.T) {
	type came struct {
		sig   os.Signal
		after time.Duration // the first
	}
	for name, tt := range map[string]struct {
		later []came
		want  os.Signal // nil for no second one
	}{
		"one":                     {nil, nil},
		"twice at once":           {[]came{{syscall.SIGTERM, 0}}, nil},
		"twice, thrice":           {[]came{{syscall.SIGTERM, 0}, {syscall.SIGTERM, doubled - 1}}, nil},
		"another at once":         {[]came{{syscall.SIGINT, 0}}, syscall.SIGINT},
		"another after a double":  {[]came{{syscall.SIGTERM, 0}, {syscall.SIGHUP, 0}}, syscall.SIGHUP},
		"again":                   {[]came{{syscall.SIGTERM, doubled}}, syscall.SIGTERM},
		"again after a double":    {[]came{{syscall.SIGTERM, 0}, {syscall.SIGTERM, time.Hour}}, syscall.SIGTERM},
		"doubles that never stop": {[]came{{syscall.SIGTERM, doubled / 2}, {syscall.SIGTERM, doubled}}, syscall.SIGTERM},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				signals := make(chan os.Signal)
				began := time.Now()
				go func() {
					defer close(signals)
					signals <- syscall.SIGTERM
					for _, c := range tt.later {
						time.Sleep(time.Until(began.Add(c.after)))
						signals <- c.sig
					}
				}()
				var first, second os.Signal
				heedTwice(signals, func(sig os.Signal) { first = sig }, func(sig os.Signal) { second = sig })
				if first != syscall.SIGTERM || second != tt.want {
					t.Errorf("the first is %v, the second %v, want %v", first, second, tt.want)
				}
			})
		})
	}
}
