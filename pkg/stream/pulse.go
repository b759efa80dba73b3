package stream

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// quickBeat is how often a client whose streams move checks that this process
	// runs.
	quickBeat = 250 * time.Millisecond
	// slowBeat is how often it checks while they are silent: waking a process costs
	// 0.1 ms of CPU or more, which is then all that it does. Slow beats are at
	// whole seconds, where servers ping, so that both wake it together.
	slowBeat = time.Second
	// restAfter is how long streams have been silent before beats are slow. Waits
	// that are not much longer are watched by quick beats from begin to end.
	restAfter = 2 * time.Second
	// shortBound is the least bound on silence that leaves a client with silent
	// streams at rest: those below it are short beside a pause between two beats.
	shortBound = 10 * time.Second
	// pulseOverdue is by how much a late beat shows that this process was paused.
	// Busy machines delay a beat by tens of ms, starved ones by a few times that.
	// A pause is always noticed if it is this much longer than the time between
	// two beats: 500 ms while streams move.
	pulseOverdue = 250 * time.Millisecond
	// pauseEcho is how long after a pause breaks are attributed to it: servers
	// and middleboxes may have given up on this end meanwhile.
	pauseEcho = time.Second
)

// A pulse notices that this process did not run for a while, because it or its
// machine was stopped. It beats while requests run.
type pulse struct {
	running atomic.Int64 // requests
	beating atomic.Bool
	slow    atomic.Bool // the next beat is a slow one
	moved   atomic.Bool // a request began or lines came since the latest beat

	mu       sync.Mutex
	restless bool // all beats are quick
	timer    *time.Timer
	due      time.Time // when the next beat is due
	lastMove time.Time // the latest beat that found that something had moved
	woke     time.Time // when the latest pause ended; zero if there was none
}

// begin counts a request that begins. restless says that beats have to be quick
// even while nothing moves.
func (p *pulse) begin(restless bool) {
	p.running.Add(1)
	p.moves()
	if p.beating.Load() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.beating.Load() {
		return
	}
	p.beating.Store(true)
	p.restless = restless
	p.beatWithin(quickBeat, time.Now())
}

// end counts a request that is over.
func (p *pulse) end() { p.running.Add(-1) }

// moves notes that a request begins, or that lines of an answer have come.
func (p *pulse) moves() {
	if p.moved.Load() {
		return
	}
	p.moved.Store(true)
	if p.slow.Load() {
		p.hurry()
	}
}

// hurry makes the next beat a quick one.
func (p *pulse) hurry() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.slow.Load() {
		now := time.Now()
		p.look(now)
		p.slow.Store(false)
		p.beatWithin(quickBeat, now)
	}
}

// beatWithin sets the next beat. The caller holds mu.
func (p *pulse) beatWithin(d time.Duration, now time.Time) {
	p.due = now.Add(d)
	if p.timer == nil {
		p.timer = time.AfterFunc(d, p.beat)
	} else {
		p.timer.Reset(d)
	}
}

// beat is called by the timer.
func (p *pulse) beat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.look(now)
	p.slow.Store(false)
	p.beating.Store(false)
	if p.running.Load() == 0 { // begin was either counted here or sees that it has to start the timer
		return
	}
	p.beating.Store(true)
	if p.moved.Swap(false) || p.restless {
		p.lastMove = now
	}
	next := quickBeat
	if now.Sub(p.lastMove) >= restAfter {
		p.slow.Store(true)
		if p.moved.Load() { // by somebody who may not have seen that beats are slow now
			p.slow.Store(false)
		} else {
			next = now.Truncate(slowBeat).Add(slowBeat).Sub(now)
			if next < quickBeat {
				next += slowBeat // a clock that was set, or this beat came early
			}
		}
	}
	p.beatWithin(next, now)
}

// wokeAt returns when the latest pause ended, as far as is known now; zero if
// there was none.
func (p *pulse) wokeAt(now time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.look(now)
	return p.woke
}

// look notes a pause if the next beat is long overdue. The caller holds mu.
func (p *pulse) look(now time.Time) {
	if !p.beating.Load() {
		return
	}
	// The monotonic clock stops while a machine sleeps, the wall clock does not.
	late := max(now.Sub(p.due), now.Round(0).Sub(p.due.Round(0)))
	if late > pulseOverdue {
		p.woke = now
		p.beatWithin(quickBeat, now)
	}
}
