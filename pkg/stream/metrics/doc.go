// Package metrics counts, for Prometheus, what a [stream.Server] does.
//
// It is a package of its own so that only programs that import it link the
// Prometheus client. docs/metrics.md lists the metrics.
package metrics
