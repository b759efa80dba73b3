package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The modes of an [ask].
const (
	plain  = "plain"  // the items, as fast as they are taken
	paced  = "paced"  // the items, period apart, each with the time it was sent
	hold   = "hold"   // one item, then silence until the request is cancelled
	breaks = "breaks" // one item, then the server closes its sockets
)

// ask is what a request asks of a server. All sides send the same text.
type ask struct {
	items  int
	from   int // index of the first item wanted
	mode   string
	period time.Duration // of paced
	trial  int           // of breaks; names the break
}

// String returns the form that parseAsk reads.
func (a ask) String() string {
	b := make([]byte, 0, 48)
	b = strconv.AppendInt(b, int64(a.items), 10)
	b = strconv.AppendInt(append(b, ' '), int64(a.from), 10)
	b = append(append(b, ' '), a.mode...)
	b = strconv.AppendInt(append(b, ' '), int64(a.period), 10)
	b = strconv.AppendInt(append(b, ' '), int64(a.trial), 10)
	return string(b)
}

// parseAsk costs little, in stack too: a goroutine's stack that it had to grow
// would stay grown, and be counted as memory of the idle streams.
func parseAsk(s string) (ask, error) {
	var a ask
	var number [5]int
	for i := range number {
		word, rest, _ := strings.Cut(s, " ")
		s = rest
		if i == 2 {
			a.mode = word
			continue
		}
		n, err := strconv.Atoi(word)
		if err != nil {
			return ask{}, err
		}
		number[i] = n
	}
	a.items, a.from = number[0], number[1]
	a.period, a.trial = time.Duration(number[3]), number[4]
	return a, nil
}

// text is what every item reads, but for the paced ones.
func text(server string) string { return "from server: " + server + ", data: h" }

// stamped is what a paced item reads: the time in place of the character.
func stamped(server string, t time.Time) string {
	return "from server: " + server + ", data: " + strconv.FormatInt(t.UnixNano(), 10)
}

// stampOf reads the time in a paced item. Both processes run on one machine, so
// that they share its clock.
func stampOf(s string) (time.Time, error) {
	n, err := strconv.ParseInt(s[strings.LastIndexByte(s, ' ')+1:], 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("item %q: no time in it", s)
	}
	return time.Unix(0, n), nil
}
