package openai

import (
	"strings"
	"unicode/utf8"

	"github.com/request-migration/migrate/pkg/internal/rawjson"
	"github.com/request-migration/migrate/pkg/stream"
)

// beginning is how many characters a continuation must differ in from the
// beginning of the answer. One that does not began the answer anew.
const beginning = 24

// piece is text from the engine.
type piece struct {
	raw    rawMessage // a JSON string
	tokens int        // how many it has; unknownTokens if the engine does not say
}

const unknownTokens = -1

// joint is where a continuation meets the text so far. It holds the first pieces
// back until it is clear how they fit: whether the answer begins anew, which
// white space is there twice, and whether a stop string began before.
type joint struct {
	begin  string   // how the answer begins; "" if that is too little
	blanks string   // the white space that the engine writes again
	tail   string   // the end of the text so far, where a stop string may begin
	stops  []string // the request's
	keep   bool     // the client wants to see stop strings

	held []piece
	text string // of held
}

// joint returns where the continuation meets the text so far; nil if nothing has
// to fit.
func (c *call) joint() *joint {
	if c.so.text == "" {
		return nil
	}
	j := &joint{blanks: c.so.blanks, stops: c.q.stops(), keep: c.q.body.Yes("include_stop_str_in_output")}
	if !c.anew() {
		j.begin = firstRunes(c.so.text, beginning)
	}
	longest := 0
	for _, s := range j.stops {
		longest = max(longest, len(s))
	}
	if longest > 1 {
		j.tail = c.so.text[max(0, len(c.so.text)-longest+1):]
	}
	return j
}

// firstRunes returns the first n characters of s; "" if there are fewer.
func firstRunes(s string, n int) string {
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	if n > 0 {
		return ""
	}
	return s
}

// add adds a piece. Unless settled, more has to come. The pieces then are what
// goes out; stopped says that the answer ends behind them.
func (j *joint) add(p piece) (pieces []piece, settled, stopped bool, err error) {
	s, _ := rawjson.Decode(p.raw)
	j.held = append(j.held, p)
	j.text += s
	return j.settle(false)
}

// settle decides about the pieces that are held. At the end of the text there is
// nothing to wait for.
func (j *joint) settle(end bool) (pieces []piece, settled, stopped bool, err error) {
	if j.begin != "" {
		switch {
		case strings.HasPrefix(j.text, j.begin):
			return nil, false, false, refuse(stream.ErrUnresumable, "the engine began the answer anew")
		case !end && strings.HasPrefix(j.begin, j.text):
			return nil, false, false, nil
		}
	}
	if !end && len(j.text) < len(j.blanks) && strings.HasPrefix(j.blanks, j.text) {
		return nil, false, false, nil
	}
	from := commonPrefix(j.text, j.blanks)
	to, stopped, wait := j.stop(from)
	if wait && !end {
		return nil, false, false, nil
	}
	return j.cut(from, to), true, stopped, nil
}

// commonPrefix returns how many bytes of whole characters a and b have in common.
func commonPrefix(a, b string) int {
	for i, r := range b {
		if rest := b[i : i+utf8.RuneLen(r)]; !strings.HasPrefix(a[min(i, len(a)):], rest) {
			return i
		}
	}
	return len(b)
}

// stop looks for a stop string that began in the text so far. It returns where
// the text ends, whether that is because of one, and whether more text may tell.
func (j *joint) stop(from int) (to int, stopped, wait bool) {
	whole := j.tail + j.text[from:]
	to = len(j.text)
	for _, s := range j.stops {
		for at := max(0, len(j.tail)-len(s)+1); at < len(j.tail); at++ {
			rest := whole[at:]
			switch {
			case strings.HasPrefix(rest, s):
				end := from
				if j.keep {
					end += at + len(s) - len(j.tail)
				}
				if !stopped || end < to {
					to, stopped = end, true
				}
			case strings.HasPrefix(s, rest):
				wait = true
			}
		}
	}
	return to, stopped, wait && !stopped
}

// cut returns the pieces of the text between two places. Pieces that are left out
// count no tokens: they were counted before.
func (j *joint) cut(from, to int) []piece {
	var out []piece
	at := 0
	for _, p := range j.held {
		s, _ := rawjson.Decode(p.raw)
		first, last := max(from-at, 0), min(to-at, len(s))
		at += len(s)
		switch {
		case first >= last:
			continue
		case first > 0 || last < len(s):
			p.raw = stream.String(s[first:last])
		}
		out = append(out, p)
	}
	j.held, j.text = nil, ""
	return out
}
