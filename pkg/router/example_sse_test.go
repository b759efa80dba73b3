package router_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"time"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/router/routertest"
	"github.com/request-migration/migrate/pkg/stream"
)

// events is an HTTP service over a router: it gives the answer as server-sent events. A
// browser that comes back says which event it saw last, and gets the rest.
type events struct{ router *router.Router }

func (e events) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	from := 0
	if last, err := strconv.Atoi(r.Header.Get("Last-Event-ID")); err == nil {
		from = last + 1
	}
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	req := router.Request{Data: stream.String(r.FormValue("q")), From: from, Ping: 15 * time.Second}
	for item, err := range e.router.Do(r.Context(), req) {
		switch {
		case err != nil:
			// Half an answer must not look like a whole one.
			fmt.Fprintf(w, "event: error\ndata: %s\n\n", strconv.Quote(err.Error()))
		case item.IsPing():
			fmt.Fprint(w, ": ping\n\n")
		default:
			fmt.Fprintf(w, "id: %d\ndata: %s\n\n", item.Index, item.Data)
		}
		if out.Flush() != nil {
			return // the browser has gone, and the request with it
		}
	}
}

// A service with server-sent events, and its unit test without a socket: one instance breaks
// in the middle, and a browser comes back.
func Example_serverSentEvents() {
	endpoint := discovery.Endpoint{Namespace: "demo", Component: "text", Name: "words"}
	words := routertest.Texts("streams", "outlive", "servers")
	client := &routertest.Client{Plays: map[string][]routertest.Play{
		"a": {{Items: words[:1], Err: stream.Truncated}},
		"b": {{Items: words}},
	}}
	r := router.New(router.Config{
		Endpoint: endpoint, Source: routertest.Source("a", "b"), Client: client, Picker: routertest.First(),
	})
	defer r.Close()
	for _, last := range []string{"", "1"} {
		browser := httptest.NewRecorder()
		request := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/?q=hello", http.NoBody)
		request.Header.Set("Last-Event-ID", last)
		events{r}.ServeHTTP(browser, request)
		fmt.Print(browser.Body)
	}
	// Output:
	// id: 0
	// data: "streams"
	//
	// id: 1
	// data: "outlive"
	//
	// id: 2
	// data: "servers"
	//
	// id: 2
	// data: "servers"
}
