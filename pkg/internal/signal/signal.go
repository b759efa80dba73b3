// Package signal wakes goroutines without waiting for them.
package signal

// Send puts a token into c unless one is there, and never blocks. c has a buffer of
// one. Its reader does everything that is due whenever it takes the token, so that
// one token stands for any number of signals, and none is lost.
//
// Send is safe for concurrent use.
func Send(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // the reader has not taken the last one yet
	}
}
