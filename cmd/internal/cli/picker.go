package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/request-migration/migrate/pkg/router"
)

// The values of --router.
const (
	PickRandom      = "random"
	PickRoundRobin  = "round-robin"
	PickLeastLoaded = "least-loaded"
	PickAffinity    = "affinity"
)

// PickerNames returns the values of --router for requests, which have no sessions.
func PickerNames() []string { return []string{PickRandom, PickRoundRobin, PickLeastLoaded} }

// SessionPickerNames returns those for requests that have.
func SessionPickerNames() []string { return append([]string{PickAffinity}, PickerNames()...) }

// ParsePicker returns the picker that --router names, one of the valid ones.
func ParsePicker(name string, valid []string) (router.Picker, error) {
	if !slices.Contains(valid, name) {
		return nil, fmt.Errorf("unknown router %q: valid are %s", name, strings.Join(valid, ", "))
	}
	switch name {
	case PickRandom:
		return router.Random(), nil
	case PickRoundRobin:
		return router.RoundRobin(), nil
	case PickLeastLoaded:
		return router.LeastLoaded(), nil
	}
	return router.Affinity(), nil
}
