package router

import (
	"context"
	"iter"
	"math/rand/v2"
	"sync"
	"testing/synctest"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/stream"
)

// sim is one simulated world and the truth about it. Whatever the router should
// know, sim knows by itself: from what the servers do and the source shows.
type sim struct {
	seed   uint64
	cfg    Config
	faulty float64 // how probable a break is
	wire   *stream.Client
	// servers, on the wire, are real ones in place of a script of bytes.
	servers *simServers
	r       *Router
	source  *listing
	begin   time.Time
	wg      sync.WaitGroup // of servers on the wire

	mu         sync.Mutex // guards what follows
	violation  string
	lines      []string
	seen       map[string]int
	listed     []discovery.Instance // what the source has
	away       []discovery.Instance // what it had
	instances  int                  // that there ever were
	shown      []discovery.Instance // what it has told the router
	everShown  map[string]discovery.Instance
	firstShown time.Time
	outage     error
	known      map[identity]*simKnown
	latest     map[discovery.InstanceID]identity // of those that were shown
	reports    []discovery.Report                // that stand, also the router's own
	heard      []heard                           // what the router has heard of others
	told       chan struct{}                     // closed when reports change
	private    map[int64]bool                    // own reports that are not to be shared, by their time
	requests   map[string]*simRequest
	visits     map[string]*visit // on the wire, by address
	open       int               // streams
}

func newSim(seed uint64) *sim {
	return &sim{
		seed:      seed,
		seen:      make(map[string]int),
		everShown: make(map[string]discovery.Instance),
		known:     make(map[identity]*simKnown),
		latest:    make(map[discovery.InstanceID]identity),
		private:   make(map[int64]bool),
		requests:  make(map[string]*simRequest),
		visits:    make(map[string]*visit),
	}
}

// rand returns the randomness of one thing, which does not depend on what else
// happens before it.
func (s *sim) rand(of ...uint64) *rand.Rand {
	h := s.seed
	for _, k := range of {
		h = mix(h ^ k)
	}
	return rand.New(rand.NewPCG(s.seed, h))
}

// mix is the finalizer of splitmix64.
func mix(h uint64) uint64 {
	h += 0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// upTo returns a random time below limit. Everything takes such a time, so that
// hardly ever two things happen in the same nanosecond, and the order in which
// goroutines run does not matter.
func upTo(rng *rand.Rand, limit time.Duration) time.Duration {
	return time.Duration(rng.Int64N(int64(limit)))
}

// simPicker is random in time, but the same at every run, for whoever comes
// first.
type simPicker uint64

func (p simPicker) Pick(_ Choice, avail []*Peer) *Peer {
	return avail[mix(uint64(p)^uint64(time.Now().UnixNano()))%uint64(len(avail))]
}

// run lives through one world, in a bubble.
func (s *sim) run() {
	rng := s.rand(1)
	s.begin = time.Now()
	s.setUp(rng)
	for i := range 1 + rng.IntN(6) {
		s.newRequest(i)
	}
	s.r = New(s.cfg)
	s.r.jitter = func(limit time.Duration) time.Duration {
		return time.Duration(mix(s.seed^uint64(time.Now().UnixNano())) % uint64(limit))
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var callers sync.WaitGroup
	for _, q := range s.requests {
		callers.Go(func() { q.run(ctx) })
	}
	s.history(rng)
	callers.Wait()
	synctest.Wait()
	s.checkTiers()
	if s.open != 0 {
		s.fail("%d streams are open after the last request", s.open)
	}
	for _, p := range s.r.Tiers().Source {
		if p.Streams() != 0 {
			s.fail("the router counts %d streams at %s after the last request", p.Streams(), p.Name)
		}
	}
	s.r.Close()
	if s.wire != nil {
		s.wire.Close()
	}
	if s.servers != nil {
		s.servers.close()
	}
	s.wg.Wait()
}

// setUp draws the router's configuration and the first instances.
func (s *sim) setUp(rng *rand.Rand) {
	s.faulty = []float64{0.1, 0.4, 0.7, 0.95}[rng.IntN(4)]
	s.cfg = Config{
		Endpoint: testEndpoint,
		Source:   s,
		Client:   s,
		Picker:   simPicker(mix(s.seed)),
		Attempts: 1 + rng.IntN(4),
		Restart:  rng.IntN(4) == 0,
		Cooldown: DefaultCooldown,
	}
	if rng.IntN(2) == 0 {
		s.cfg.Cooldown = time.Millisecond + upTo(rng, 8*time.Second)
	}
	if rng.IntN(3) == 0 {
		s.cfg.MaxCooldown = time.Duration(float64(s.cfg.Cooldown) * 5 * rng.Float64())
	}
	if rng.IntN(2) == 0 {
		s.cfg.Wait = upTo(rng, 10*time.Second)
	}
	if rng.IntN(2) == 0 {
		s.cfg.WaitRestore = upTo(rng, 15*time.Second)
	}
	s.cfg.Panic = rng.IntN(4) == 0
	if rng.IntN(4) == 0 {
		s.cfg.MaxPrefix = 1 + rng.IntN(100)
	}
	if rng.IntN(2) == 0 {
		s.cfg.Reports, s.cfg.Reporter = s, simReporter
	}
	switch rng.IntN(6) {
	case 0:
		s.wire = &stream.Client{Dial: s.dial}
		if rng.IntN(2) == 0 {
			s.wire.ItemTimeout = 3 * time.Second
		}
	case 1:
		s.servers = newSimServers(s)
		s.wire = &stream.Client{Dial: s.servers.dial, MaxStreams: 1}
	}
	s.told = make(chan struct{}) // in the bubble
	s.source = newListing()
	for range rng.IntN(7) {
		s.join(rng)
	}
	switch rng.IntN(10) {
	case 0:
		s.outage = errBoom
		s.source.change(nil, s.outage)
	case 1:
		s.source.change(nil, nil) // silence
	default:
		s.publish()
	}
}

// Watch implements [Source]: what it shows the router becomes the truth.
func (s *sim) Watch(ctx context.Context, e discovery.Endpoint) iter.Seq2[discovery.Instances, error] {
	return func(yield func(discovery.Instances, error) bool) {
		for set, err := range s.source.Watch(ctx, e) {
			if err == nil {
				s.shows(set.List)
			}
			if !yield(set, err) {
				return
			}
		}
	}
}
