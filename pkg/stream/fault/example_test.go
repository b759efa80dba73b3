package fault_test

import (
	"context"
	"fmt"

	"github.com/request-migration/migrate/pkg/stream"
	"github.com/request-migration/migrate/pkg/stream/fault"
)

// An injector makes the second and third request of a server fail.
func ExampleInject() {
	mode, err := fault.ParseMode("2-3")
	if err != nil {
		fmt.Println(err)
		return
	}
	faulty := fault.Inject(stream.Echo("server1", 0), fault.Fault{Mode: mode, After: 2})
	for n := range 4 {
		items := 0
		err := faulty.Handle(context.Background(), &stream.Request{Data: stream.String("hello")}, func(stream.Annotated) error {
			items++
			return nil
		})
		fmt.Printf("request %d: %d items, %v\n", n+1, items, err)
	}
	// Output:
	// request 1: 5 items, <nil>
	// request 2: 2 items, Stream ended before generation completed
	// request 3: 2 items, Stream ended before generation completed
	// request 4: 5 items, <nil>
}
