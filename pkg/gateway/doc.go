// Package gateway is an HTTP server for ordinary OpenAI clients, whose answers go on while the
// engines behind it are killed.
//
// A [Gateway] serves each model that discovery lists through a router of its own. The request
// of a client becomes one of the router, whose items become one answer again: with one id,
// one role, one finish reason and one usage, however many engines wrote it. Half an answer is
// never passed off as a whole one: what cannot be carried on ends with an error in the stream
// and an aborted connection.
//
// Behind it are instances of `migrate serve --openai` that discovery lists, or [Engines] in
// this process, without a socket in between.
package gateway
