// Slowlines is a program for tests to put behind serve. It writes a number of lines, some
// time apart, each of which tells the message on standard input and its own number, and
// goes on where MIGRATE_FROM or MIGRATE_PREFIX say.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"time"
)

func main() {
	lines := flag.Int("lines", 40, "how many `lines` the answer has")
	apart := flag.Duration("apart", 50*time.Millisecond, "how far apart they are")
	by := flag.String("by", "", "what a later start goes by: index or prefix")
	flag.Parse()
	message, err := io.ReadAll(os.Stdin)
	if err != nil {
		log.Fatal(err)
	}
	from := 0
	switch *by {
	case "index":
		from, err = strconv.Atoi(os.Getenv("MIGRATE_FROM"))
	case "prefix":
		if name := os.Getenv("MIGRATE_PREFIX"); name != "" {
			var prefix []byte
			prefix, err = os.ReadFile(name)
			from = bytes.Count(prefix, []byte("\n"))
		}
	}
	if err != nil {
		log.Fatal(err)
	}
	for n := from; n < *lines; n++ {
		if n > from {
			time.Sleep(*apart)
		}
		if _, err := fmt.Printf("line %d of %s\n", n, message); err != nil {
			log.Fatal(err)
		}
	}
}
