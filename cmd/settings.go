package cmd

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/request-migration/migrate/pkg/discovery"
)

const defaultEndpoint = "dynamo/backend/generate"

// addCommonFlags adds the flags that every command has.
func addCommonFlags(flags *pflag.FlagSet) {
	flags.String("store-kv", "file", "where instances are registered: "+strings.Join(storeNames(), ", "))
	flags.String("file-kv", filepath.Join(os.TempDir(), "dynamo_store_kv"), "directory of the file store")
	flags.StringSlice("etcd-endpoints", []string{"http://localhost:2379"}, "addresses of the etcd store")
	flags.String("endpoint", defaultEndpoint, "what is served, as namespace/component/endpoint")
	flags.String("log", "", `log level, also by component: "info,router=debug" (default info for serve, warn otherwise)`)
	flags.String("log-format", "text", "log format: "+strings.Join(logFormats(), ", "))
	flags.String("config", "", "file with values for flags: YAML, TOML or JSON")
}

// environment names the variables that stand for flags.
func environment() map[string]string {
	return map[string]string{
		"store-kv":       "DYN_STORE_KV",
		"file-kv":        "DYN_FILE_KV",
		"etcd-endpoints": "ETCD_ENDPOINTS",
		"endpoint":       "DYN_ENDPOINT",
		"log":            "MIGRATE_LOG",
		"log-format":     "MIGRATE_LOG_FORMAT",
		"name":           "SERVER_NAME",
		"failure-mode":   "FAILURE_MODE",
	}
}

// loadSettings gives every flag that was not set its value from the environment
// or from the configuration file.
func loadSettings(cmd *cobra.Command) error {
	v := viper.New()
	for flag, name := range environment() {
		if err := v.BindEnv(flag, name); err != nil {
			return fmt.Errorf("reading %s: %w", name, err)
		}
	}
	file, err := cmd.Flags().GetString("config")
	if err != nil {
		return fmt.Errorf("reading --config: %w", err)
	}
	if file != "" {
		if err := readConfig(cmd, v, file); err != nil {
			return usageError{err}
		}
	}
	var firstErr error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Changed || firstErr != nil || !v.IsSet(f.Name) {
			return
		}
		source := "--config " + file
		if name := environment()[f.Name]; os.Getenv(name) != "" {
			source = name
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

// readConfig reads a file whose keys are names of flags, of this command or of
// another: one file may serve all.
func readConfig(cmd *cobra.Command, v *viper.Viper, file string) error {
	if ext := strings.TrimPrefix(filepath.Ext(file), "."); !slices.Contains(configFormats(), ext) {
		return fmt.Errorf("--config %s: its name must end in .%s", file, strings.Join(configFormats(), ", ."))
	}
	v.SetConfigFile(file)
	if err := v.ReadInConfig(); err != nil {
		return fmt.Errorf("--config %s: %w", file, err)
	}
	var known []string
	for _, c := range append(cmd.Root().Commands(), cmd.Root()) {
		add := func(f *pflag.Flag) { known = append(known, f.Name) }
		c.LocalFlags().VisitAll(add)
	}
	slices.Sort(known)
	known = slices.DeleteFunc(slices.Compact(known), func(name string) bool {
		return name == "config" || name == "help" || name == "version"
	})
	for key := range topKeys(v) {
		if !slices.Contains(known, key) {
			return fmt.Errorf("--config %s: unknown key %q: valid are %s", file, key, strings.Join(known, ", "))
		}
	}
	return nil
}

func configFormats() []string { return []string{"yaml", "yml", "toml", "json"} }

// topKeys returns the keys of the file, without those that only the environment has.
func topKeys(v *viper.Viper) map[string]bool {
	keys := make(map[string]bool)
	for _, key := range v.AllKeys() {
		if v.InConfig(key) || strings.Contains(key, ".") {
			top, _, _ := strings.Cut(key, ".")
			keys[top] = true
		}
	}
	return keys
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
