package stream

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// pulseInterval is how often a client with running requests checks that this
	// process runs. Four times a second costs next to no CPU, however many
	// streams there are.
	pulseInterval = 250 * time.Millisecond
	// pulseOverdue is how long after a beat the next one shows that this process
	// was paused. Busy machines delay a beat by tens of ms, starved ones by a few
	// times that; a pause of 500 ms is always noticed.
	pulseOverdue = 2 * pulseInterval
	// pauseEcho is how long after a pause breaks are attributed to it: servers
	// and middleboxes may have given up on this end meanwhile.
	pauseEcho = time.Second
)

// A pulse notices that this process did not run for a while, because it or its
// machine was stopped. It beats while requests run.
type pulse struct {
	running atomic.Int64 // requests
	beating atomic.Bool

	mu    sync.Mutex
	timer *time.Timer
	last  time.Time // when it was last seen to beat
	woke  time.Time // when the latest pause ended; zero if there was none
}

// begin counts a request that begins.
func (p *pulse) begin() {
	p.running.Add(1)
	if p.beating.Load() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.beating.Load() {
		return
	}
	p.beating.Store(true)
	p.last = time.Now()
	if p.timer == nil {
		p.timer = time.AfterFunc(pulseInterval, p.beat)
	} else {
		p.timer.Reset(pulseInterval)
	}
}

// end counts a request that is over.
func (p *pulse) end() { p.running.Add(-1) }

// beat is called by the timer.
func (p *pulse) beat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.look(time.Now())
	p.beating.Store(false)
	if p.running.Load() > 0 { // begin was either counted here or sees that it has to start the timer
		p.beating.Store(true)
		p.timer.Reset(pulseInterval)
	}
}

// wokeAt returns when the latest pause ended, as far as is known now; zero if
// there was none.
func (p *pulse) wokeAt(now time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.look(now)
	return p.woke
}

// look notes a pause if the last beat is too long ago. The caller holds mu.
func (p *pulse) look(now time.Time) {
	if !p.beating.Load() {
		return
	}
	// The monotonic clock stops while a machine sleeps, the wall clock does not.
	gap := max(now.Sub(p.last), now.Round(0).Sub(p.last.Round(0)))
	if gap > pulseOverdue {
		p.woke = now
	}
	p.last = now
}
