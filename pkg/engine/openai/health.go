package openai

import (
	"context"
	"errors"
	"iter"
	"net"
	"net/http"
	"slices"
	"time"
)

// HealthOff as [Config.Health] means that the engine is never taken for dead.
const HealthOff = "off"

const (
	// checkEvery is how often an engine is asked how it is.
	checkEvery = 2 * time.Second
	// answerTime is how long it has to answer.
	answerTime = 5 * time.Second
	// modelsEvery is how often it is asked for its models.
	modelsEvery = 30 * time.Second
	// maxSilences is how many questions in a row it may leave open.
	maxSilences = 3
	// aliveByStream is how long an item of a stream shows that an engine lives
	// that is too busy to answer.
	aliveByStream = 15 * time.Second
	// maxHealth is how much is read of an answer, in bytes.
	maxHealth = 64 << 10
)

// Standing is what is known of an engine.
type Standing struct {
	// Alive says that it takes requests. Why says why not.
	Alive bool
	Why   string
	// Kind is what it is; "" if it never answered.
	Kind Kind
	// Models are to be listed, and no others; none if it is not alive.
	Models []Model
	// Missing are picked models that the engine does not have.
	Missing []string
}

func (s Standing) equal(t Standing) bool {
	return s.Alive == t.Alive && s.Kind == t.Kind && (s.Why == "") == (t.Why == "") &&
		slices.Equal(s.Models, t.Models) && slices.Equal(s.Missing, t.Missing)
}

// Watch asks the engine how it is, every 2 s, and for its models, every 30 s, and
// yields how it stands: once when that is known first, and then each time that it
// has changed. Each one is complete. The sequence ends with ctx.
//
// An engine is dead once it refuses a connection, answers with a status of 500 or
// more (503 is loading), or was silent three times in a row while none of its
// streams got anything for 15 s. Streams that run are not touched.
func (e *Engine) Watch(ctx context.Context) iter.Seq[Standing] {
	return func(yield func(Standing) bool) {
		w := &watch{e: e}
		ticks := time.NewTicker(checkEvery)
		defer ticks.Stop()
		for {
			s, known := w.round(ctx)
			if ctx.Err() != nil {
				return
			}
			if known && (!w.told || !s.equal(w.last)) {
				w.last, w.told = s, true
				if !yield(s) {
					return
				}
			}
			select {
			case <-ctx.Done():
				return
			case <-ticks.C:
			case <-e.check:
			case <-e.known.wanted:
				w.readAt = time.Time{}
			}
		}
	}
}

// askNow makes [Engine.Watch] ask at once: a request had a reason to doubt.
func (e *Engine) askNow() {
	select {
	case e.check <- struct{}{}:
	default:
	}
}

// watch is what a [Engine.Watch] remembers.
type watch struct {
	e        *Engine
	last     Standing
	told     bool
	alive    bool
	why      string
	silences int
	noHealth bool      // the kind's own path is not there
	readAt   time.Time // when the list was read last
	unread   string    // why the list can't be read; "" if it can, or nobody has tried
}

// round asks the engine once. It reports false while nothing is known.
func (w *watch) round(ctx context.Context) (Standing, bool) {
	was := w.alive
	settled := w.ask(ctx)
	if w.alive && (!was && time.Since(w.readAt) >= checkEvery || time.Since(w.readAt) >= modelsEvery) {
		w.read(ctx)
	}
	list := w.e.known.get()
	s := Standing{Alive: w.alive, Why: w.why, Kind: w.e.cfg.Kind}
	if list != nil {
		s.Kind = list.kind
	}
	switch {
	case !w.alive:
		return s, settled || w.told
	case list == nil:
		s.Alive, s.Why = false, "the engine does not say which models it has: "+w.unread
		return s, true
	}
	s.Models = list.models
	s.Missing = w.e.missing(list)
	return s, true
}

// read reads the list of models. The last one stands while it can't be read.
func (w *watch) read(ctx context.Context) {
	asking, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	list, err := w.e.readModels(asking)
	switch {
	case ctx.Err() != nil:
	case err == nil:
		w.readAt, w.unread = time.Now(), ""
		w.e.known.set(list)
	default:
		if w.unread == "" && w.e.known.get() != nil { // or it was said already
			w.e.log.Warn("The engine's models cannot be read; the last list stands", "engine", w.e.base.String(), "err", err)
		}
		w.unread = err.Error()
	}
}

// missing returns the picked models that are not in a list.
func (e *Engine) missing(l *modelList) []string {
	var names []string
	for _, pick := range e.cfg.Models {
		id := pick.ID
		if id == "" {
			id = pick.Name
		}
		if l.id(id) == "" {
			names = append(names, id)
		}
	}
	return names
}

// path returns where the engine is asked.
func (w *watch) path() string {
	kind := w.e.cfg.Kind
	if l := w.e.known.get(); l != nil {
		kind = l.kind
	}
	switch {
	case w.e.cfg.Health != "":
		return w.e.cfg.Health
	case w.noHealth:
		return modelsPath
	}
	return kind.healthPath()
}

// ask asks the engine how it is. It reports false if the answer settles nothing.
func (w *watch) ask(ctx context.Context) bool {
	if w.e.cfg.Health == HealthOff {
		w.alive = true
		return true
	}
	if w.e.known.get() == nil && w.e.cfg.Kind == "" && w.e.cfg.Health == "" {
		w.read(ctx) // which path is the right one
	}
	path := w.path()
	asking, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	began := time.Now()
	status, _, err := w.e.get(asking, path, maxHealth)
	switch {
	case ctx.Err() != nil:
		return false
	case isSilence(err):
		if time.Since(began) > answerTime+stopTime {
			return false // it is this process that did not run
		}
		return w.silence()
	case err != nil:
		return w.dead("the engine cannot be reached: " + err.Error())
	case status >= http.StatusInternalServerError:
		return w.dead((&engineError{status: status}).text())
	case status == http.StatusNotFound && w.e.cfg.Health == "" && path != modelsPath:
		w.noHealth = true
		return w.ask(ctx)
	case status == http.StatusOK, w.e.cfg.Health == "":
		// Other answers, such as that the key is wrong, are signs of life too.
		w.alive, w.why, w.silences = true, "", 0
		return true
	}
	return w.dead((&engineError{status: status}).text())
}

func (w *watch) dead(why string) bool {
	w.alive, w.why, w.silences = false, why, 0
	return true
}

// silence counts a question that was left open.
func (w *watch) silence() bool {
	w.silences++
	if w.silences < maxSilences || w.e.sinceGot() < aliveByStream {
		return false
	}
	w.alive, w.why = false, "the engine does not answer"
	return true
}

// sinceGot returns how long ago a stream of the engine last got something.
func (e *Engine) sinceGot() time.Duration {
	at := e.lastGot.Load()
	if at == 0 {
		return time.Since(e.birth) + aliveByStream // never
	}
	return time.Since(e.birth) - time.Duration(at)
}

// isSilence reports whether an engine did not answer in time. One that is gone
// refuses the connection.
func isSilence(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}
