// Package logs makes the loggers of the program's components, in the formats and at the
// levels that --log and --log-format ask for.
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

// logComponents returns the parts of the program that can have a level of their own.
func logComponents() []string {
	return []string{"serve", "request", "instances", "router", "discovery", "stream", "engine"}
}

// Formats returns the values of --log-format.
func Formats() []string { return []string{"text", "json", "logfmt"} }

// logLevels holds the lowest level that each component logs.
type logLevels struct {
	// all is the level of the components that are not in byComponent.
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
// component, and COMPONENT=LEVEL, for one of them. A later part overrides an earlier one,
// so a command puts its own default in front of the user's value. The default is warn.
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

// CheckSpec returns an error that names the valid values if spec is not a value of --log.
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

// Logs makes the loggers of the program's components. They share one writer, each with
// its own level. Logs and its loggers are safe for concurrent use.
type Logs struct {
	w       io.Writer
	levels  logLevels
	format  string
	profile termenv.Profile
}

// New returns logs that write to w, with one Write a record and never two at a time.
// Records have colours if w is a terminal and NO_COLOR is not set. spec is a comma-separated
// list of LEVEL and COMPONENT=LEVEL, the later ones overriding the earlier ones; the default
// is warn. An unknown level, component or format is an error that names the valid ones.
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

// For returns the logger of a component, which must be one of those in --log.
func (l *Logs) For(component string) *slog.Logger {
	level := l.levels.of(component)
	field := []slog.Attr{slog.String(componentKey, component)}
	var h slog.Handler
	switch l.format {
	case "json":
		// Charm's JSON panics on an error that is a nil pointer, and writes
		// "invalid value" for what it cannot encode.
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

// lowerLevel writes levels in lower case in JSON, as logfmt and --log do.
func lowerLevel(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.LevelKey {
		a.Value = slog.StringValue(strings.ToLower(a.Value.String()))
	}
	return a
}

// recordHandler changes records so that every format shows them in full.
type recordHandler struct {
	slog.Handler

	text bool
}

// Handle implements [slog.Handler].
func (h recordHandler) Handle(ctx context.Context, r slog.Record) error {
	msg := r.Message
	if h.text {
		msg = term.Plain(msg) // charm escapes only values
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

// shownAttr renames an attribute whose key is that of a part of every record: charm's
// text format leaves it out, and JSON would have the key twice. It also resolves a
// [slog.LogValuer], which charm does not.
func shownAttr(a slog.Attr) slog.Attr {
	switch a.Key {
	case log.TimestampKey, log.LevelKey, log.CallerKey, log.PrefixKey, log.MessageKey, componentKey:
		a.Key += "_"
	}
	a.Value = a.Value.Resolve()
	return a
}

// lockedWriter lets one Write through at a time. Charm's loggers lock only themselves, so
// those that share a writer would interleave.
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
