// Package logs makes the loggers of the program's components.
package logs

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/charmbracelet/log"
	"github.com/muesli/termenv"

	"github.com/request-migration/migrate/cmd/internal/term"
)

// levelOff is above every level that a record can have.
const levelOff = slog.Level(math.MaxInt)

// componentKey is the field that names the component in json and logfmt.
const componentKey = "component"

// logComponents are the parts of the program whose level can be set apart.
func logComponents() []string {
	return []string{"serve", "request", "instances", "router", "discovery", "stream"}
}

// Formats are the values of --log-format.
func Formats() []string { return []string{"text", "json", "logfmt"} }

// logLevels says from which level on each component logs.
type logLevels struct {
	// all is the level of the components that byComponent does not have.
	all         slog.Level
	byComponent map[string]slog.Level
}

func (l logLevels) of(component string) slog.Level {
	if level, ok := l.byComponent[component]; ok {
		return level
	}
	return l.all
}

// parseLogSpec parses a --log value: a comma-separated list of LEVEL, for every
// component, and COMPONENT=LEVEL, for one of them. Where two parts set the same
// level the later one does, so a command puts its own default in front of what
// it was given. Without any LEVEL it is warn.
func parseLogSpec(spec string) (logLevels, error) {
	levels := logLevels{all: slog.LevelWarn, byComponent: map[string]slog.Level{}}
	for part := range strings.SplitSeq(spec, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		component, name, ofOne := strings.Cut(part, "=")
		if !ofOne {
			name = part
		}
		level, err := parseLogLevel(strings.TrimSpace(name))
		if err != nil {
			return logLevels{}, err
		}
		if !ofOne {
			levels.all = level
			continue
		}
		component = strings.TrimSpace(component)
		if !slices.Contains(logComponents(), component) {
			return logLevels{}, fmt.Errorf("unknown log component %q (valid: %s)",
				component, strings.Join(logComponents(), ", "))
		}
		levels.byComponent[component] = level
	}
	return levels, nil
}

// CheckSpec says what is wrong with a --log value, or returns nil.
func CheckSpec(spec string) error {
	_, err := parseLogSpec(spec)
	return err
}

func parseLogLevel(name string) (slog.Level, error) {
	switch strings.ToLower(name) {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	case "off":
		return levelOff, nil
	}
	return 0, fmt.Errorf("unknown log level %q (valid: debug, info, warn, error, off)", name)
}

// Logs makes the loggers of the program's components. They share one writer and
// differ in their level. It is safe for concurrent use, as its loggers are.
type Logs struct {
	w       io.Writer
	levels  logLevels
	format  string
	profile termenv.Profile
}

// New returns logs that write to w, which gets one Write a record and never
// two at a time. Colours are used where w is a terminal and NO_COLOR is not set.
// A spec (see [parseLogSpec]) or a format that is not known is an error that
// names the valid ones.
func New(w io.Writer, spec, format string) (*Logs, error) {
	levels, err := parseLogSpec(spec)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(Formats(), format) {
		return nil, fmt.Errorf("unknown log format %q (valid: %s)",
			format, strings.Join(Formats(), ", "))
	}
	return &Logs{w: &lockedWriter{w: w}, levels: levels, format: format, profile: term.ColorProfile(w)}, nil
}

// For returns the logger of a component.
func (l *Logs) For(component string) *slog.Logger {
	level := l.levels.of(component)
	field := []slog.Attr{slog.String(componentKey, component)}
	var h slog.Handler
	switch l.format {
	case "json":
		// Not charm's JSON: it panics on an error that is a nil pointer, and
		// says no more than "invalid value" of what it cannot encode.
		h = slog.NewJSONHandler(l.w, &slog.HandlerOptions{Level: level, ReplaceAttr: lowerLevel}).
			WithAttrs(field)
	case "logfmt":
		h = l.charm(level, log.LogfmtFormatter, "2006-01-02T15:04:05.000Z07:00").WithAttrs(field)
	default:
		h = l.charm(level, log.TextFormatter, time.DateTime+".000").WithPrefix(component)
	}
	return slog.New(recordHandler{Handler: h, text: l.format == "text"})
}

func (l *Logs) charm(level slog.Level, formatter log.Formatter, timeFormat string) *log.Logger {
	logger := log.NewWithOptions(l.w, log.Options{
		Level:           log.Level(level),
		Formatter:       formatter,
		ReportTimestamp: true,
		TimeFormat:      timeFormat,
	})
	logger.SetColorProfile(l.profile)
	return logger
}

// lowerLevel writes levels in lower case in json, as logfmt and --log do.
func lowerLevel(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.LevelKey {
		a.Value = slog.StringValue(strings.ToLower(a.Value.String()))
	}
	return a
}

// recordHandler hands records on in a form that every format shows in full.
type recordHandler struct {
	slog.Handler

	text bool
}

// Handle implements [slog.Handler].
func (h recordHandler) Handle(ctx context.Context, r slog.Record) error {
	msg := r.Message
	if h.text {
		msg = term.Plain(msg) // charm escapes values alone
	}
	shown := slog.NewRecord(r.Time, r.Level, msg, r.PC)
	for a := range r.Attrs {
		shown.AddAttrs(shownAttr(a))
	}
	return h.Handler.Handle(ctx, shown)
}

// WithAttrs implements [slog.Handler].
func (h recordHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	shown := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		shown[i] = shownAttr(a)
	}
	h.Handler = h.Handler.WithAttrs(shown)
	return h
}

// WithGroup implements [slog.Handler].
func (h recordHandler) WithGroup(name string) slog.Handler {
	h.Handler = h.Handler.WithGroup(name)
	return h
}

// shownAttr renames an attribute that has the key of a part of every record:
// charm's text leaves such an attribute out, json gets the key twice. It
// resolves a [slog.LogValuer] too, as charm does not.
func shownAttr(a slog.Attr) slog.Attr {
	switch a.Key {
	case log.TimestampKey, log.LevelKey, log.CallerKey, log.PrefixKey, log.MessageKey, componentKey:
		a.Key += "_"
	}
	a.Value = a.Value.Resolve()
	return a
}

// lockedWriter lets one Write through at a time. Each charm logger has a lock of
// its own only, so loggers that share a writer would interleave.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

// Write implements [io.Writer].
func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
