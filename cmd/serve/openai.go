package serve

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/request-migration/migrate/cmd/internal/cli"
	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/engine/openai"
	"github.com/request-migration/migrate/pkg/stream/fault"
)

// maxOpenAIRequest leaves room for images, which are part of a request as text.
const maxOpenAIRequest = 32 << 20

// openaiOptions are the options of an engine that is an OpenAI-compatible server.
type openaiOptions struct {
	url              string
	models           []string
	firstItemTimeout []string
	itemTimeout      time.Duration
	engineType       string
	health           string
	reasoning        string
	toolCalls        string
	keyFile          string
}

// openaiFlags returns the flags that only such an engine has.
func openaiFlags() []string {
	return []string{"model", "first-item-timeout", "item-timeout", "engine-type", "health", "reasoning", "tool-calls", "engine-key-file"}
}

func (o *openaiOptions) addFlags(cmd *cobra.Command) {
	kinds := make([]string, 0, len(openai.Kinds()))
	for _, k := range openai.Kinds() {
		kinds = append(kinds, string(k))
	}
	flags := cmd.Flags()
	flags.StringVar(&o.url, "openai", "", "URL of an OpenAI-compatible server that answers the requests, with or without /v1")
	flags.StringArrayVar(&o.models, "model", nil, "with --openai: a model to register, as NAME, or NAME=ID for the engine's own ID under another name; repeatable (default: all that the engine lists)")
	flags.StringArrayVar(&o.firstItemTimeout, "first-item-timeout", nil, fmt.Sprintf("with --openai: bound on the time to the first token, or MODEL=DURATION for one model; repeatable (default %v)", openai.DefaultFirstItemTimeout))
	flags.DurationVar(&o.itemTimeout, "item-timeout", openai.DefaultItemTimeout, "with --openai: bound on the time to each further token")
	flags.StringVar(&o.engineType, "engine-type", "", "with --openai: what the engine is, "+strings.Join(kinds, ", ")+" (default: the engine is asked)")
	flags.StringVar(&o.health, "health", "", "with --openai: the PATH at which the engine is asked how it is, or "+openai.HealthOff+" (default: by its type)")
	flags.StringVar(&o.reasoning, "reasoning", string(openai.ReasoningRestart), "with --openai: what becomes of an answer that breaks while nothing but reasoning has come: restart, fail")
	flags.StringVar(&o.toolCalls, "tool-calls", string(openai.ToolCallsHold), "with --openai: hold tool calls until they are complete, or stream them; streamed ones can't be carried on: hold, stream")
	flags.StringVar(&o.keyFile, "engine-key-file", "", "with --openai: file with the key that the engine wants; read again when it changes")
	cli.Complete(cmd, "engine-type", kinds...)
	cli.Complete(cmd, "reasoning", string(openai.ReasoningRestart), string(openai.ReasoningFail))
	cli.Complete(cmd, "tool-calls", string(openai.ToolCallsHold), string(openai.ToolCallsStream))
}

// engineConfig checks the options.
func (o *openaiOptions) engineConfig(cmd *cobra.Command, resumeBy string) (openai.Config, error) {
	cfg := openai.Config{URL: o.url, ItemTimeout: o.itemTimeout, Health: o.health}
	fail := func(flag string, err error) (openai.Config, error) {
		return openai.Config{}, cli.Invalid(cmd, flag, err)
	}
	var err error
	switch resumeBy {
	case "":
	case string(discovery.ResumePrefix):
		cfg.ResumeByPrefix = true
	default:
		return fail("resume-by", fmt.Errorf("%q: an engine can promise prefix, to go on behind a trailing assistant message, and nothing else", resumeBy))
	}
	for _, model := range o.models {
		name, id, named := strings.Cut(model, "=")
		if name == "" || named && id == "" {
			return fail("model", fmt.Errorf("%q: want NAME or NAME=ID", model))
		}
		cfg.Models = append(cfg.Models, openai.Pick{Name: name, ID: id})
	}
	if cfg.FirstItemTimeout, cfg.FirstItemTimeouts, err = cli.FirstItemTimeouts(o.firstItemTimeout); err != nil {
		return fail("first-item-timeout", err)
	}
	if o.itemTimeout <= 0 {
		return fail("item-timeout", fmt.Errorf("%v: it must be above 0", o.itemTimeout))
	}
	if o.engineType != "" {
		if cfg.Kind, err = openai.ParseKind(o.engineType); err != nil {
			return fail("engine-type", err)
		}
	}
	if o.health != "" && o.health != openai.HealthOff && !strings.HasPrefix(o.health, "/") {
		return fail("health", fmt.Errorf("%q: want a path such as /health, or %s", o.health, openai.HealthOff))
	}
	if cfg.Reasoning, err = openai.ParseReasoning(o.reasoning); err != nil {
		return fail("reasoning", err)
	}
	if cfg.ToolCalls, err = openai.ParseToolCalls(o.toolCalls); err != nil {
		return fail("tool-calls", err)
	}
	if o.keyFile != "" {
		if cfg.Key, err = cli.KeyFile(o.keyFile); err != nil {
			return fail("engine-key-file", err)
		}
	}
	if _, err := openai.New(cfg); err != nil {
		return fail("openai", err)
	}
	return cfg, nil
}

// openai returns the engine that is an OpenAI-compatible server.
func (o *options) openai(cmd *cobra.Command) (engine, error) {
	cfg, err := o.engineConfig(cmd, o.resumeBy)
	if err != nil {
		return engine{}, err
	}
	if !cmd.Flags().Changed("name") {
		u, err := url.Parse(cfg.URL)
		if err != nil {
			return engine{}, cli.Invalid(cmd, "openai", err)
		}
		o.name = u.Host // two engines are told apart
	}
	return engine{
		name: openai.EndpointName, resume: discovery.ResumePrefix, failureMode: fault.Never, maxRequest: maxOpenAIRequest,
		flags: append(openaiFlags(), "resume-by"),
		open: func(c cli.Common) (opened, error) {
			cfg.Logger = c.Logs.For("engine")
			e, err := openai.New(cfg)
			if err != nil {
				return opened{}, cli.UsageError(err)
			}
			return opened{
				handler: e.Handle, release: e.Close,
				listed: func(ctx context.Context) iter.Seq[[]discovery.Instance] {
					return listModels(e.Watch(ctx), c.Endpoint.Namespace, o.url, c.Logs.For("serve"))
				},
			}, nil
		},
	}, nil
}

// listModels turns what is known of an engine into the instances that are to be listed, one
// a model, and logs what has changed.
func listModels(standings iter.Seq[openai.Standing], namespace, engine string, log *slog.Logger) iter.Seq[[]discovery.Instance] {
	return func(yield func([]discovery.Instance) bool) {
		for s := range standings {
			if !s.Alive {
				log.Warn("The engine takes no requests: none of its models is registered", "engine", engine, "why", s.Why)
			}
			if len(s.Missing) > 0 && s.Alive {
				log.Warn("The engine does not have a model that --model names", "engine", engine, "models", strings.Join(s.Missing, ", "))
			}
			instances := make([]discovery.Instance, 0, len(s.Models))
			for _, m := range s.Models {
				resume := discovery.ResumeNo
				if m.ByPrefix {
					resume = discovery.ResumePrefix
				}
				instances = append(instances, discovery.Instance{
					Endpoint: cli.ModelEndpoint(namespace, m.Name),
					Resume:   resume, Engine: openai.EndpointName, MaxRequest: maxOpenAIRequest,
				})
			}
			if s.Alive {
				log.Info("The engine is ready", "engine", engine, "type", s.Kind, "models", len(s.Models))
			}
			if !yield(instances) {
				return
			}
		}
	}
}
