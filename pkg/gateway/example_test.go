package gateway_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/request-migration/migrate/pkg/engine/openai"
	"github.com/request-migration/migrate/pkg/engine/openai/openaitest"
	"github.com/request-migration/migrate/pkg/gateway"
)

// A gateway before two engines, of which the first to be asked breaks in the middle of its
// answer. The client reads one answer all the same.
func Example() {
	engines := map[string]*openai.Engine{}
	for _, name := range []string{"a", "b"} {
		p := &openaitest.Provider{OwnedBy: "vllm", Models: []string{"small"}, Tokens: strings.SplitAfter("An answer goes on.", " ")}
		p.Misbehave = func(r openaitest.Request) (int, []openaitest.Step) {
			if role, _ := r.LastMessage(); role == "assistant" {
				return 0, nil // it goes on behind what another has written
			}
			return 2, []openaitest.Step{openaitest.Cut()}
		}
		if err := p.Start(); err != nil {
			panic(err)
		}
		defer p.Stop()
		e, err := openai.New(openai.Config{URL: p.URL()})
		if err != nil {
			panic(err)
		}
		defer e.Close()
		engines[name] = e
	}

	all := gateway.NewEngines("example", engines, nil)
	defer all.Close()
	migrated := make(chan int, 1)
	g := gateway.New(gateway.Config{
		Engines: all,
		Done:    func(e *gateway.Entry) { migrated <- len(e.Migrations) },
	})
	defer g.Close()
	server := httptest.NewServer(g)
	defer server.Close()

	question := `{"model":"small","messages":[{"role":"user","content":"Does it?"}]}`
	resp, err := http.Post(server.URL+"/v1/chat/completions", "application/json", strings.NewReader(question))
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	var answer struct {
		Choices []struct{ Message struct{ Content string } }
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		panic(err)
	}
	fmt.Println(answer.Choices[0].Message.Content)
	fmt.Println("migrations:", <-migrated)
	// Output:
	// An answer goes on.
	// migrations: 1
}
