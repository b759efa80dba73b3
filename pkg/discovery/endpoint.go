package discovery

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// An Endpoint is what instances serve, written namespace/component/name.
type Endpoint struct {
	Namespace, Component, Name string
}

// ParseEndpoint reads the form namespace/component/endpoint, and Dynamo's form
// dyn://namespace.component.endpoint, where no part has a dot. A part that is empty,
// "." or "..", or has white space or a control character is an error.
func ParseEndpoint(s string) (Endpoint, error) {
	parts := strings.Split(s, "/")
	if rest, ok := strings.CutPrefix(s, "dyn://"); ok {
		parts = strings.Split(rest, ".")
	}
	if len(parts) != 3 {
		return Endpoint{}, endpointError(s, fmt.Errorf("3 parts are needed, not %d", len(parts)))
	}
	e := Endpoint{Namespace: parts[0], Component: parts[1], Name: parts[2]}
	if err := e.checkParts(); err != nil {
		return Endpoint{}, endpointError(s, err)
	}
	return e, nil
}

// endpointError adds the endpoint and the right form to err.
func endpointError(s string, err error) error {
	return fmt.Errorf("endpoint %q: %w; the form is namespace/component/endpoint, such as dynamo/backend/generate, or dyn://namespace.component.endpoint", s, err)
}

// String returns the form namespace/component/endpoint.
func (e Endpoint) String() string {
	return e.Namespace + "/" + e.Component + "/" + e.Name
}

// check returns an error if e can't be part of a key.
func (e Endpoint) check() error {
	if err := e.checkParts(); err != nil {
		return endpointError(e.String(), err)
	}
	return nil
}

func (e Endpoint) checkParts() error {
	for _, part := range []string{e.Namespace, e.Component, e.Name} {
		if err := checkPart(part); err != nil {
			return err
		}
	}
	return nil
}

func checkPart(part string) error {
	switch {
	case part == "":
		return errors.New("a part is empty")
	case part == "." || part == "..":
		return fmt.Errorf("%q is no part", part)
	case !utf8.ValidString(part):
		return errors.New("a part is not valid UTF-8")
	case strings.Contains(part, "/"):
		return errors.New("a part has a slash")
	case strings.ContainsFunc(part, unicode.IsSpace):
		return errors.New("a part has white space")
	case strings.ContainsFunc(part, unicode.IsControl):
		return errors.New("a part has a control character")
	}
	return nil
}

// prefix begins the keys of the instances of e.
func (e Endpoint) prefix() string { return instancesPrefix + e.String() + "/" }
