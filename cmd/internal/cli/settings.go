package cli

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/request-migration/migrate/cmd/internal/logs"
	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/etcd"
	"github.com/request-migration/migrate/pkg/discovery/file"
)

const defaultEndpoint = "dynamo/backend/generate"

// AddCommonFlags adds the flags that every command has to the root command.
func AddCommonFlags(root *cobra.Command) {
	flags := root.PersistentFlags()
	flags.String("store-kv", "file", "where instances are registered: "+strings.Join(storeNames(), ", "))
	flags.String("file-kv", file.DefaultDir(), "directory of the file store")
	flags.StringSlice("etcd-endpoints", []string{etcd.DefaultEndpoint}, "addresses of the etcd store")
	flags.String("endpoint", defaultEndpoint, "what is served, as namespace/component/endpoint or dyn://namespace.component.endpoint")
	flags.String("log", "", `log level, also by component: "info,router=debug" (default info for serve, warn otherwise)`)
	flags.String("log-format", "text", "log format: "+strings.Join(logs.Formats(), ", "))
	flags.String("config", "", "file with values for flags: YAML, TOML or JSON")
	Complete(root, "store-kv", storeNames()...)
	Complete(root, "log-format", logs.Formats()...)
}

// environment returns the variables that set each flag. Where several set the same flag
// they must agree.
func environment() map[string][]string {
	return map[string][]string{
		"store-kv":       {"DYN_STORE_KV", "DYN_DISCOVERY_BACKEND"},
		"file-kv":        {"DYN_FILE_KV"},
		"etcd-endpoints": {"ETCD_ENDPOINTS"},
		"endpoint":       {"DYN_ENDPOINT"},
		"log":            {"MIGRATE_LOG"},
		"log-format":     {"MIGRATE_LOG_FORMAT"},
		"name":           {"SERVER_NAME"},
		"failure-mode":   {"FAILURE_MODE"},
	}
}

// variableOf returns the name of the variable that sets a flag, or "" if none does.
func variableOf(flag string) (string, error) {
	set := ""
	for _, name := range environment()[flag] {
		switch value := os.Getenv(name); {
		case value == "":
		case set == "":
			set = name
		case value != os.Getenv(set):
			return "", fmt.Errorf("%s is %q and %s is %q: they mean the same setting, so unset one of them", set, os.Getenv(set), name, value)
		}
	}
	return set, nil
}

// LoadSettings sets every flag of cmd that the command line does not set from the
// environment or, failing that, from the configuration file.
func LoadSettings(cmd *cobra.Command) error {
	v := viper.New()
	for flag, names := range environment() {
		if err := v.BindEnv(append([]string{flag}, names...)...); err != nil {
			return fmt.Errorf("reading %s: %w", names[0], err)
		}
	}
	file, err := cmd.Flags().GetString("config")
	if err != nil {
		return fmt.Errorf("reading --config: %w", err)
	}
	if file != "" {
		values, err := readConfig(cmd, file)
		if err == nil {
			err = v.MergeConfigMap(values)
		}
		if err != nil {
			return UsageError(fmt.Errorf("--config %s: %w", file, err))
		}
	}
	var firstErr error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Changed || firstErr != nil || !v.IsSet(f.Name) {
			return
		}
		source, err := variableOf(f.Name)
		if err != nil {
			firstErr = UsageError(err)
			return
		}
		if source == "" {
			source = "--config " + file
		}
		f.Annotations = map[string][]string{sourceKey: {source}}
		for _, text := range settingTexts(v.Get(f.Name)) {
			if err := cmd.Flags().Set(f.Name, text); err != nil {
				firstErr = UsageError(fmt.Errorf("%s: %w", source, err))
				return
			}
		}
	})
	return firstErr
}

// sourceKey is the annotation that says where a flag's value comes from if not from the
// command line.
const sourceKey = "source"

// settingTexts returns a value, or each element of a list, as the text that a flag
// takes.
func settingTexts(value any) []string {
	list, ok := value.([]any)
	if !ok {
		return []string{fmt.Sprint(value)}
	}
	texts := make([]string, len(list))
	for i, element := range list {
		texts[i] = fmt.Sprint(element)
	}
	return texts
}

// Common holds the values of the common flags.
type Common struct {
	Store    string
	StoreSet bool // false: Store is the default
	Endpoint discovery.Endpoint
	Logs     *logs.Logs

	fileDir string
	fileSet bool // false: fileDir is the default
	etcd    []string

	namespace string // of Kubernetes, once the store is open
}

// ReadCommon reads and checks the common flags. level is the command's default log
// level.
func ReadCommon(cmd *cobra.Command, level string) (Common, error) {
	flags := cmd.Flags()
	get := func(name string) string {
		s, err := flags.GetString(name)
		if err != nil {
			panic(err) // a flag's name is misspelled in this program
		}
		return s
	}
	c := Common{Store: get("store-kv"), StoreSet: flags.Changed("store-kv"), fileDir: get("file-kv"), fileSet: flags.Changed("file-kv")}
	var err error
	if c.etcd, err = flags.GetStringSlice("etcd-endpoints"); err != nil {
		return Common{}, fmt.Errorf("reading --etcd-endpoints: %w", err)
	}
	if !slices.Contains(storeNames(), c.Store) {
		return Common{}, Invalid(cmd, "store-kv", fmt.Errorf("unknown store %q: valid are %s", c.Store, strings.Join(storeNames(), ", ")))
	}
	if c.Store == "etcd" {
		for _, e := range c.etcd {
			if err := checkEtcdEndpoint(e); err != nil {
				return Common{}, Invalid(cmd, "etcd-endpoints", err)
			}
		}
	}
	if c.Endpoint, err = discovery.ParseEndpoint(get("endpoint")); err != nil {
		return Common{}, Invalid(cmd, "endpoint", err)
	}
	if err := logs.CheckSpec(get("log")); err != nil {
		return Common{}, Invalid(cmd, "log", err)
	}
	if c.Logs, err = logs.New(cmd.ErrOrStderr(), level+","+get("log"), get("log-format")); err != nil {
		return Common{}, Invalid(cmd, "log-format", err)
	}
	return c, nil
}
