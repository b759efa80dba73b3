package openai

import (
	"github.com/request-migration/migrate/pkg/internal/rawjson"
)

// Kind is the software that an engine is. It decides which fields of its own an
// engine is sent, and whether it can go on behind the beginning of an answer.
type Kind string

// The kinds of engine.
const (
	VLLM     Kind = "vllm"
	SGLang   Kind = "sglang"
	LlamaCpp Kind = "llamacpp"
	Ollama   Kind = "ollama"
	// Other is any other server, of which nothing is presumed.
	Other Kind = "other"
)

// Kinds returns all kinds.
func Kinds() []Kind { return []Kind{VLLM, SGLang, LlamaCpp, Ollama, Other} }

// ParseKind returns the kind of that name. The error lists the valid ones.
func ParseKind(name string) (Kind, error) {
	return parse("engine type", name, Kinds()...)
}

// kindOf returns the kind of engine that says owner of its models ("owned_by").
func kindOf(owner string) Kind {
	switch owner {
	case string(VLLM), string(SGLang), string(LlamaCpp):
		return Kind(owner)
	case "library": // Ollama's name for its own models
		return Ollama
	}
	return Other
}

// resumes reports whether engines of that kind continue a trailing assistant
// message.
func (k Kind) resumes() bool { return k == VLLM || k == SGLang || k == LlamaCpp }

// extend adds the fields that make the engine say more of its progress: how many
// tokens there are so far, and that a long prompt is being read.
func (k Kind) extend(body object, options object) {
	switch k {
	case VLLM, SGLang:
		options["continuous_usage_stats"] = rawjson.Bool(true)
	case LlamaCpp:
		body["timings_per_token"], body["return_progress"] = rawjson.Bool(true), rawjson.Bool(true)
	case Ollama, Other:
	}
}

// continueMessage adds the fields with which the engine continues the last
// message, in place of answering it. vLLM and llama.cpp need both; SGLang takes
// the first and does not know the second.
func (k Kind) continueMessage(body object) {
	body["continue_final_message"] = rawjson.Bool(true)
	if k != SGLang {
		body["add_generation_prompt"] = rawjson.Bool(false)
	}
}

// healthPath returns where the engine is asked how it is. SGLang's /health
// generates a token, and Ollama has none.
func (k Kind) healthPath() string {
	if k == SGLang || k == Ollama {
		return modelsPath
	}
	return "/health"
}
