// Package openai makes an OpenAI-compatible server (vLLM, SGLang, llama.cpp,
// Ollama, a hosted provider) an engine: a [stream.Handler] whose answers can be
// carried on at another one.
//
// [Engine.Handle] turns a request into one HTTP request and the server-sent
// events of its answer into items. A request that brings the items so far is
// continued behind them, where the engine is able to. [Engine.Watch] looks after
// the engine's health and says which models are to be listed.
//
// The items are strings and objects with a "text" for content, and items with one
// of the events [EventHead], [EventReasoning], [EventChunk], [EventSSE] and
// [EventResponse]. docs/engines.md describes them.
package openai
