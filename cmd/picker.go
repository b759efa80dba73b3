package cmd

import (
	"fmt"
	"strings"

	"github.com/request-migration/migrate/pkg/router"
)

// The values of --router.
const (
	pickRandom      = "random"
	pickRoundRobin  = "round-robin"
	pickLeastLoaded = "least-loaded"
)

func pickerNames() []string { return []string{pickRandom, pickRoundRobin, pickLeastLoaded} }

// parsePicker returns the picker that --router names.
func parsePicker(name string) (router.Picker, error) {
	switch name {
	case pickRandom:
		return router.Random(), nil
	case pickRoundRobin:
		return router.RoundRobin(), nil
	case pickLeastLoaded:
		return router.LeastLoaded(), nil
	}
	return nil, fmt.Errorf("unknown router %q: valid are %s", name, strings.Join(pickerNames(), ", "))
}
