package cli

import (
	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/engine/openai"
)

// ModelEndpoint returns the endpoint at which a model of OpenAI-compatible engines is
// listed in a namespace.
func ModelEndpoint(namespace, model string) discovery.Endpoint {
	return discovery.Endpoint{Namespace: namespace, Component: openai.Component(model), Name: openai.EndpointName}
}
