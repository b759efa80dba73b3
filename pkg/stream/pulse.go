package stream

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// pulseInterval is how often a client with running requests looks whether
	// this process runs: four times a second costs no CPU to speak of, however
	// many streams there are.
	pulseInterval = 250 * time.Millisecond
	// pulseOverdue is the time between two beats from which on this process was
	// paused. Busy machines delay a beat by tens of ms, starved ones by a few
	// times that; a pause of 500 ms is always noticed.
	pulseOverdue = 2 * pulseInterval
	// pauseEcho is how long after a pause breaks are put down to it: servers and
	// middleboxes may have given up on this end meanwhile.
	pauseEcho = time.Second
)

// A pulse notices that this process did not run for a while: it was stopped by a
// signal, or its machine was. It beats while requests run.
type pulse struct {
	running atomic.Int64 // requests
	beating atomic.Bool

	mu    sync.Mutex
	timer *time.Timer
	last  time.Time // when it was last seen to beat
	woke  time.Time // when the newest pause was over; zero if none was
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

// beat is what the timer runs.
func (p *pulse) beat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.look(time.Now())
	p.beating.Store(false)
	if p.running.Load() > 0 { // begin has either been counted here or sees that it has to start
		p.beating.Store(true)
		p.timer.Reset(pulseInterval)
	}
}

// wokeAt returns when the newest pause was over, as far as that is known now; it
// is zero if there was none.
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
	// A machine that sleeps stops the monotonic clock, but not the other one.
	gap := max(now.Sub(p.last), now.Round(0).Sub(p.last.Round(0)))
	if gap > pulseOverdue {
		p.woke = now
	}
	p.last = now
}
