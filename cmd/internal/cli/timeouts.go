package cli

import (
	"fmt"
	"strings"
	"time"
)

// FirstItemTimeouts parses the values of --first-item-timeout: a duration for all models, 0 if
// none is given, and MODEL=DURATION for one of them.
func FirstItemTimeouts(values []string) (all time.Duration, models map[string]time.Duration, err error) {
	models = make(map[string]time.Duration)
	for _, value := range values {
		// A model's name may have an equals sign, a duration has none.
		model, text := "", value
		if i := strings.LastIndexByte(value, '='); i >= 0 {
			model, text = value[:i], value[i+1:]
		}
		d, err := time.ParseDuration(text)
		if err != nil || d <= 0 || model == "" && text != value {
			return 0, nil, fmt.Errorf("%q: want a duration above 0, such as 90s, or MODEL=DURATION", value)
		}
		if model == "" {
			all = d
		} else {
			models[model] = d
		}
	}
	return all, models, nil
}
