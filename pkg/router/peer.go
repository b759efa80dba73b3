package router

import (
	"sync/atomic"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
)

// Peer is an instance as a router knows it: its record, and what the router has seen
// of the instance. When the record changes there is a new Peer, which shares what
// has been seen. A Peer is safe for concurrent use.
//
// What a choice among very many instances costs is the memory that it touches. A Peer
// takes 64 bytes, which the allocator aligns as such: all that a choice reads is in one
// cache line, and in no other instance's.
type Peer struct {
	*state              // its own, or that of the Peer with the record before
	*discovery.Instance // its record, which must not be changed

	to  *string // the record's name, for requests; nil if they do not send it
	own state
}

// state is what a router has seen of an instance, which is an id and an incarnation.
// Fields that are read for each choice are atomic, so that choosing takes no lock.
type state struct {
	streams atomic.Int32  // that this router has open there
	owing   atomic.Int32  // requests sent that have no start yet
	half    atomic.Uint32 // shut or half-open, and above that how many trials there have been
	marks   atomic.Uint32
	backoff atomic.Int64 // its end by the tiers' clock; 0 for none
	life    atomic.Int64 // the last time that it answered a request, or had none to answer

	// past is nil as long as nothing has happened to the instance, so that thousands of
	// sound ones take little memory. It is guarded by tiers.mu, as is all in it.
	past *past
}

// The bits of state.marks.
const (
	isDown     uint32 = 1 << iota // this router's own report stands
	isDraining                    // it has answered a request with draining
	isPanicked                    // a request asks it in panic
)

func (s *state) is(mark uint32) bool { return s.marks.Load()&mark != 0 }

// set sets a mark, and reports whether it was not set before.
func (s *state) set(mark uint32) bool { return s.marks.Or(mark)&mark == 0 }

func (s *state) unset(mark uint32) { s.marks.And(^mark) }

// past is what has happened to an instance.
type past struct {
	replaced  bool      // a server was started anew under its id
	failures  int       // in a row
	report    Down      // the newest of this router's own
	halfSince time.Time // when it last became half-open
	outweighs time.Time // reports of others read until then are refuted
}

// remember returns the past of the instance, to be added to. The caller holds tiers.mu.
func (s *state) remember() *past {
	if s.past == nil {
		s.past = &past{}
	}
	return s.past
}

// recall returns the past of the instance. The caller holds tiers.mu.
func (s *state) recall() past {
	if s.past == nil {
		return past{}
	}
	return *s.past
}

// The values of state.half, in its lowest bits. An instance that is back from a report is
// half-open until a request has shown that it serves. One request at a time takes that
// trial.
const (
	shut uint32 = iota
	halfOpen
	onTrial
	oneTrial = 4 // the bits above count the trials
)

func (s *state) halfState() uint32 { return s.half.Load() % oneTrial }

// shuts ends that the instance is half-open.
func (s *state) shuts() { s.half.And(^uint32(oneTrial - 1)) }

// opens makes the instance half-open, unless it is.
func (s *state) opens() {
	if v := s.half.Load(); v%oneTrial == shut {
		s.half.CompareAndSwap(v, v+halfOpen)
	}
}

// takeTrial makes the caller's request the one that tries a half-open instance.
// It returns the trial, or 0 if another request has it.
func (s *state) takeTrial() (trial uint32) {
	v := s.half.Load()
	trial = v - halfOpen + onTrial + oneTrial
	if v%oneTrial != halfOpen || !s.half.CompareAndSwap(v, trial) {
		return 0
	}
	return trial
}

// passTrial leaves a trial to the next request, unless the trial has been decided;
// another may have begun since.
func (s *state) passTrial(trial uint32) { s.half.CompareAndSwap(trial, trial-onTrial+halfOpen) }

const (
	// owingLimit is how long an instance may owe a start before requests pass
	// over it. 250 ms are far more than a sound server takes, and an eighth of the
	// start timeout: a server that hangs delays the requests of a quarter of a
	// second.
	owingLimit = 250 * time.Millisecond
	// defaultBackoff is for an instance that does not say how long to back off.
	defaultBackoff = time.Second
	// maxBackoff bounds what an instance can ask for.
	maxBackoff = 30 * time.Second
)

// newPeer returns an instance of which nothing has been seen.
func newPeer(i discovery.Instance) *Peer {
	p := &Peer{Instance: &i, to: recordOf(i)}
	p.state = &p.own
	return p
}

// withRecord returns p with its new record i.
func (p *Peer) withRecord(i discovery.Instance) *Peer {
	return &Peer{state: p.state, Instance: &i, to: recordOf(i)}
}

// recordOf returns the name by which requests say which instance they mean, or nil.
// Only records that came from a registry have an incarnation, and only their servers
// know their names.
func recordOf(i discovery.Instance) *string {
	if i.Incarnation == "" {
		return nil
	}
	to := i.Record()
	return &to
}

// record returns the name by which requests say that they mean p, or "".
func (p *Peer) record() string {
	if p.to == nil {
		return ""
	}
	return *p.to
}

// identity tells instances apart, also a server from an earlier one with the same id.
type identity struct {
	id          discovery.InstanceID
	incarnation string
}

func (p *Peer) identity() identity { return identity{p.ID, p.Incarnation} }

// Streams returns how many streams this router has open at the instance now.
func (p *Peer) Streams() int { return int(p.streams.Load()) }

// HalfOpen reports whether the instance is back from a report and no request
// has shown yet that it serves.
func (p *Peer) HalfOpen() bool { return p.halfState() != shut }

// isPassedOver reports whether requests go elsewhere while another instance is left.
func (s *state) isPassedOver(now int64) bool {
	return s.halfState() == onTrial || s.isBackingOff(now) ||
		s.owing.Load() > 0 && now-s.life.Load() >= int64(owingLimit)
}

func (s *state) isBackingOff(now int64) bool {
	until := s.backoff.Load()
	return until != 0 && until > now
}

// isUnmarked reports whether the instance has no mark against it. It does not read
// the clock, and is nearly always true.
func (s *state) isUnmarked() bool {
	return uint32(s.owing.Load())|s.marks.Load()&isDown|s.halfState() == 0 && s.backoff.Load() == 0
}

// asked notes that a request was sent. Its sender later calls answered, or forget if
// it gives up. If answered returns true, other requests still wait; the caller then
// calls alive, as the answer is a sign of life to them.
func (s *state) asked(now int64) {
	if s.owing.Load() == 0 {
		s.life.Store(now)
	}
	s.owing.Add(1)
}

func (s *state) answered() (othersWait bool) { return s.owing.Add(-1) > 0 }

func (s *state) alive(now int64) { s.life.Store(now) }

func (s *state) forget() { s.owing.Add(-1) }
