package router_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/router"
	"github.com/request-migration/migrate/pkg/stream"
)

// overHTTP is a client of servers that speak HTTP: a line of the answer is an item, and a
// line "." ends it.
type overHTTP struct{}

func (overHTTP) Stream(ctx context.Context, i discovery.Instance, req stream.Request) iter.Seq2[stream.Annotated, error] {
	return func(yield func(stream.Annotated, error) bool) {
		post, err := http.NewRequestWithContext(ctx, http.MethodPost, i.Address, bytes.NewReader(req.Data))
		if err != nil {
			yield(stream.Annotated{}, err)
			return
		}
		resp, err := http.DefaultClient.Do(post)
		if err != nil {
			yield(stream.Annotated{}, &stream.Break{Kind: stream.Unreachable, Err: err})
			return
		}
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() {
			if lines.Text() == "." {
				return
			}
			if !yield(stream.Annotated{Data: stream.String(lines.Text())}, nil) {
				return
			}
		}
		yield(stream.Annotated{}, stream.Truncated) // the connection ended before the answer did
	}
}

// hashing sends the requests of a session to the same instance, and to the next best for it
// when that one is gone. (The highest of the hashes decides: rendezvous hashing.)
type hashing struct{}

func (hashing) Pick(c router.Choice, avail []*router.Peer) *router.Peer {
	return slices.MaxFunc(avail, func(a, b *router.Peer) int {
		return strings.Compare(rank(c.Key, a), rank(c.Key, b))
	})
}

func rank(key string, p *router.Peer) string {
	sum := sha256.Sum256([]byte(p.ID.String() + "/" + key))
	return string(sum[:])
}

// A picker and a transport of one's own. The server that a session is at breaks in the
// middle, and the request goes on at another.
func Example_transport() {
	var asked []string
	serve := func(name string, broken bool) discovery.Instance {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			asked = append(asked, name)
			fmt.Fprintln(w, "one")
			if !broken {
				fmt.Fprint(w, "two\n.\n")
			}
		}))
		return discovery.Instance{ID: discovery.InstanceID(len(name)), Name: name, Transport: "http", Address: server.URL, Resume: discovery.ResumeNo}
	}
	r := router.New(router.Config{
		Endpoint: discovery.Endpoint{Namespace: "demo", Component: "text", Name: "lines"},
		Source:   discovery.Static(serve("x", true), serve("yy", false), serve("zzz", false)),
		Client:   overHTTP{}, Picker: hashing{},
		Routable: func(i discovery.Instance) bool { return i.Transport == "http" },
	})
	defer r.Close()
	for _, session := range []string{"session 2", "session 2"} {
		for item, err := range r.Do(context.Background(), router.Request{Data: stream.String("count"), Key: session}) {
			if err != nil {
				fmt.Println(err)
				break
			}
			text, _ := item.Text()
			fmt.Println(item.Peer.Name, item.Index, text)
		}
	}
	fmt.Println(asked)
	// Output:
	// x 0 one
	// yy 1 two
	// yy 0 one
	// yy 1 two
	// [x yy yy]
}
