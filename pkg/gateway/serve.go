package gateway

import (
	"net/http"
	"time"
)

// text answers a request for text, streamed or not.
func (g *Gateway) text(w http.ResponseWriter, r *http.Request) {
	g.serve(w, r, func(q *query, a *answer) sink {
		switch {
		case q.whole:
			return newPassed(w, q)
		case q.streamed:
			return &streamed{events: newEvents(w, q), q: q, a: a}
		}
		return &collected{w: w, q: q, a: a}
	})
}

// serve reads a request, and answers it by way of the sink that open returns.
func (g *Gateway) serve(w http.ResponseWriter, r *http.Request, open func(*query, *answer) sink) {
	if g.refuses() {
		w.Header().Set("Connection", "close")
		judge(errLeaving).write(w)
		return
	}
	q, wrong := g.readQuery(w, r)
	if wrong != nil {
		wrong.write(w)
		return
	}
	w.Header().Set("X-Request-Id", q.id)
	first := g.models.await(r.Context(), q.model)
	if first == nil {
		g.unknownModel(q.model).write(w)
		return
	}
	if what := q.keptByEngine(); what != "" && len(first.router.Tiers().Source) > 1 {
		(&apiError{status: http.StatusBadRequest, kind: "invalid_request_error", code: "kept_by_engine",
			message: what + " refers to what one engine keeps, and the model " + first.name + " has several"}).write(w)
		return
	}
	key, _ := r.Context().Value(keyName{}).(string)
	entry := &Entry{ID: q.id, Key: key, Path: q.path, Asked: q.model, Streamed: q.streamed, Time: time.Now(), began: time.Now()}
	a := &answer{chat: q.path == chatPath, model: first.name}
	err := g.run(r, q, first, a, open(q, a), entry)
	entry.Took = time.Since(entry.began)
	if g.cfg.Done != nil {
		g.cfg.Done(entry)
	}
	if err != nil {
		// The client must not take what it has for the whole.
		panic(http.ErrAbortHandler)
	}
}
