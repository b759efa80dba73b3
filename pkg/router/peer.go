package router

import (
	"sync/atomic"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

// Peer is an instance as a router knows it: its record, which does not change,
// and what the router has seen of the instance, which all records of the same
// instance share. It is safe for concurrent use.
type Peer struct {
	*state
	discovery.Instance

	to string // the record's name, for requests; "" if they do not say it
}

// state is what a router knows of an instance: an id and an incarnation. It
// outlives a change of the instance's record. What is read for each choice is
// atomic, so that choosing takes no lock.
type state struct {
	streams atomic.Int64 // of this router that run there

	down    atomic.Bool  // this router's own report stands
	half    atomic.Int32 // shut, or half-open
	trials  atomic.Int64 // that there ever were
	backoff atomic.Int64 // when it ends, by the tiers' clock; 0 for none
	owing   atomic.Int32 // requests that were sent and have no start yet
	life    atomic.Int64 // when it last answered one, or had none to answer

	draining atomic.Bool // it has told a request that it is leaving
	panicked atomic.Bool // a request asks it because nobody else is left

	// Guarded by tiers.mu.
	failures  int       // in a row
	report    Down      // the newest of this router's own
	halfSince time.Time // when it last became half-open
	outweighs time.Time // reports that stood then have been proved wrong
}

// What state.half can be. An instance that was reported is half-open until a
// request has shown that it serves: one request at a time takes that trial.
const (
	shut int32 = iota
	halfOpen
	onTrial
)

const (
	// owingLimit is how long an instance may owe a start before requests go
	// elsewhere: far beyond what a sound server takes, and an eighth of the
	// start timeout, so that one that hangs costs the requests of a quarter of
	// a second.
	owingLimit = 250 * time.Millisecond
	// defaultBackoff is for an instance that does not say when to come again.
	defaultBackoff = time.Second
	// maxBackoff bounds what an instance can ask for.
	maxBackoff = 30 * time.Second
)

// newPeer returns an instance that nothing is known of. Both its parts are one
// piece of memory, as whoever chooses reads both.
func newPeer(i discovery.Instance) *Peer {
	both := &struct {
		peer  Peer
		state state
	}{}
	both.peer = Peer{Instance: i, state: &both.state, to: recordOf(i)}
	return &both.peer
}

// withRecord returns p as its new record i has it.
func (p *Peer) withRecord(i discovery.Instance) *Peer {
	return &Peer{Instance: i, state: p.state, to: recordOf(i)}
}

// recordOf returns the name by which requests say whom they mean: only records
// that came from a registry have an incarnation, and servers that know it.
func recordOf(i discovery.Instance) string {
	if i.Incarnation == "" {
		return ""
	}
	return i.Record()
}

// identity tells instances apart, also a server from the one before it that had
// the same id.
type identity struct {
	id          discovery.InstanceID
	incarnation string
}

func (p *Peer) identity() identity { return identity{p.ID, p.Incarnation} }

// Streams returns how many streams of this router run at the instance now.
func (p *Peer) Streams() int { return int(p.streams.Load()) }

// HalfOpen reports whether the instance is back from a report and no request
// has shown yet that it serves.
func (p *Peer) HalfOpen() bool { return p.half.Load() != shut }

// isPassedOver reports whether requests go elsewhere while anybody else is left.
func (s *state) isPassedOver(now int64) bool {
	return s.half.Load() == onTrial || s.isBackingOff(now) ||
		s.owing.Load() > 0 && now-s.life.Load() >= int64(owingLimit)
}

func (s *state) isBackingOff(now int64) bool {
	until := s.backoff.Load()
	return until != 0 && until > now
}

// isUnmarked reports whether nothing speaks against the instance. It needs no
// clock, and is nearly always true.
func (s *state) isUnmarked() bool {
	return !s.down.Load() && s.half.Load() == shut && s.backoff.Load() == 0 && s.owing.Load() == 0
}

// takeTrial makes the caller's request the one that tries a half-open instance.
// It returns the trial's number, or 0 if another request has it.
func (s *state) takeTrial() int64 {
	if !s.half.CompareAndSwap(halfOpen, onTrial) {
		return 0
	}
	return s.trials.Add(1)
}

// passTrial leaves a trial to the next request, unless it has been decided, and
// another may have begun.
func (s *state) passTrial(trial int64) {
	if s.trials.Load() == trial {
		s.half.CompareAndSwap(onTrial, halfOpen)
	}
}

// asked notes that a request was sent, answered that one was answered and
// whether others still wait, for which alive is called: the answer is a sign of
// life to them. Whoever gives up on an answer calls forget.
func (s *state) asked(now int64) {
	if s.owing.Load() == 0 {
		s.life.Store(now)
	}
	s.owing.Add(1)
}

func (s *state) answered() (othersWait bool) { return s.owing.Add(-1) > 0 }

func (s *state) alive(now int64) { s.life.Store(now) }

func (s *state) forget() { s.owing.Add(-1) }
