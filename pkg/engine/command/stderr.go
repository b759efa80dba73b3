package command

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxLogged is how many bytes of a line on standard error are logged together.
const maxLogged = 1024

// maxLate is more than a pipe holds: who writes more has left the program's group.
const maxLate = 2 << 20

// listen reads the program's standard error, keeps its end, and logs its lines.
func (p *program) listen() {
	logged := p.log.Enabled(context.Background(), slog.LevelDebug)
	buf := make([]byte, 4*maxLogged)
	var line []byte
	late := 0 // bytes that came after everything should have ended
	for {
		n, err := p.err.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) && late < maxLate {
			n, err = readNow(p.err, buf)
			late += n
		}
		p.tail.add(buf[:n])
		for b := buf[:n]; logged && len(b) > 0; {
			// A progress bar ends its lines with a carriage return.
			end := bytes.IndexAny(b, "\r\n")
			part := b
			if end >= 0 {
				part = b[:end]
			}
			part = part[:min(len(part), maxLogged-len(line))]
			line = append(line, part...)
			b = b[len(part):]
			if ended := len(b) > 0 && (b[0] == '\r' || b[0] == '\n'); ended {
				b = b[1:]
			} else if len(line) < maxLogged {
				break // the rest has not come yet
			}
			p.logLine(line)
			line = line[:0]
		}
		if err != nil {
			if len(line) > 0 {
				p.logLine(line)
			}
			return
		}
	}
}

// logLine logs a line of the program's standard error, without what could act
// on a terminal.
func (p *program) logLine(line []byte) {
	text := strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == '\t' {
			return ' '
		}
		if !unicode.IsGraphic(r) {
			return utf8.RuneError
		}
		return r
	}, string(line)))
	if text != "" {
		p.log.Debug("program says", "stderr", text)
	}
}
