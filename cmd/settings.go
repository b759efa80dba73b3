package cmd

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/request-migration/migrate/pkg/discovery"
	"github.com/request-migration/migrate/pkg/discovery/etcd"
	"github.com/request-migration/migrate/pkg/discovery/file"
)

const defaultEndpoint = "dynamo/backend/generate"

// addCommonFlags adds the flags that every command has.
func addCommonFlags(flags *pflag.FlagSet) {
	flags.String("store-kv", "file", "where instances are registered: "+strings.Join(storeNames(), ", "))
	flags.String("file-kv", file.DefaultDir(), "directory of the file store")
	flags.StringSlice("etcd-endpoints", []string{etcd.DefaultEndpoint}, "addresses of the etcd store")
	flags.String("endpoint", defaultEndpoint, "what is served, as namespace/component/endpoint or dyn://namespace.component.endpoint")
	flags.String("log", "", `log level, also by component: "info,router=debug" (default info for serve, warn otherwise)`)
	flags.String("log-format", "text", "log format: "+strings.Join(logFormats(), ", "))
	flags.String("config", "", "file with values for flags: YAML, TOML or JSON")
}

// environment names the variables that stand for flags. Of several that stand for
// one none may contradict another.
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

// variableOf returns the variable that is set for a flag; "" if none is.
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

// loadSettings gives every flag that was not set its value from the environment
// or from the configuration file.
func loadSettings(cmd *cobra.Command) error {
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
			return usageError{fmt.Errorf("--config %s: %w", file, err)}
		}
	}
	var firstErr error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Changed || firstErr != nil || !v.IsSet(f.Name) {
			return
		}
		source, err := variableOf(f.Name)
		if err != nil {
			firstErr = usageError{err}
			return
		}
		if source == "" {
			source = "--config " + file
		}
		f.Annotations = map[string][]string{sourceKey: {source}}
		for _, text := range settingTexts(v.Get(f.Name)) {
			if err := cmd.Flags().Set(f.Name, text); err != nil {
				firstErr = usageError{fmt.Errorf("%s: %w", source, err)}
				return
			}
		}
	})
	return firstErr
}

// sourceKey is the annotation of a flag that says where its value comes from,
// when that is not the command line.
const sourceKey = "source"

// invalid is the error of a flag's value. It names what has to be mended.
func invalid(cmd *cobra.Command, flag string, err error) error {
	source := "--" + flag
	if s := cmd.Flags().Lookup(flag).Annotations[sourceKey]; len(s) > 0 {
		source = s[0]
	}
	return usageError{fmt.Errorf("%s: %w", source, err)}
}

// settingTexts returns a value in the form that flags take; of a list, each
// element.
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

// common is what every command is told.
type common struct {
	store    string
	storeSet bool // and not by default
	fileDir  string
	fileSet  bool // and not by default
	etcd     []string
	endpoint discovery.Endpoint
	logs     *logs
}

// readCommon reads the flags that every command has. level is the command's
// log level where nothing else is said.
func readCommon(cmd *cobra.Command, level string) (common, error) {
	flags := cmd.Flags()
	get := func(name string) string {
		s, err := flags.GetString(name)
		if err != nil {
			panic(err) // the flag's name is wrong, here in the code
		}
		return s
	}
	c := common{store: get("store-kv"), storeSet: flags.Changed("store-kv"), fileDir: get("file-kv"), fileSet: flags.Changed("file-kv")}
	var err error
	if c.etcd, err = flags.GetStringSlice("etcd-endpoints"); err != nil {
		return common{}, fmt.Errorf("reading --etcd-endpoints: %w", err)
	}
	if !slices.Contains(storeNames(), c.store) {
		return common{}, invalid(cmd, "store-kv", fmt.Errorf("unknown store %q: valid are %s", c.store, strings.Join(storeNames(), ", ")))
	}
	if c.store == "etcd" {
		for _, e := range c.etcd {
			if err := checkEtcdEndpoint(e); err != nil {
				return common{}, invalid(cmd, "etcd-endpoints", err)
			}
		}
	}
	if c.endpoint, err = discovery.ParseEndpoint(get("endpoint")); err != nil {
		return common{}, invalid(cmd, "endpoint", err)
	}
	if _, err := parseLogSpec(get("log")); err != nil {
		return common{}, invalid(cmd, "log", err)
	}
	if c.logs, err = newLogs(cmd.ErrOrStderr(), level+","+get("log"), get("log-format")); err != nil {
		return common{}, invalid(cmd, "log-format", err)
	}
	return c, nil
}
