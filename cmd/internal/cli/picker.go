package cli

import (
	"fmt"
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

// PickerNames returns the values of --router.
func PickerNames() []string {
	return []string{PickRandom, PickRoundRobin, PickLeastLoaded, PickAffinity}
}

// ParsePicker returns the picker that --router names.
func ParsePicker(name string) (router.Picker, error) {
	switch name {
	case PickRandom:
		return router.Random(), nil
	case PickRoundRobin:
		return router.RoundRobin(), nil
	case PickLeastLoaded:
		return router.LeastLoaded(), nil
	case PickAffinity:
		return router.Affinity(), nil
	}
	return nil, fmt.Errorf("unknown router %q: valid are %s", name, strings.Join(PickerNames(), ", "))
}
