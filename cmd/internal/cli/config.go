package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// readConfig reads a file whose keys are names of flags, of any command: one file can
// serve all. A value is the text as written in the file, a list of texts for a flag that
// can be repeated, or nil for none. Viper would parse numbers and format them anew.
func readConfig(cmd *cobra.Command, file string) (map[string]any, error) {
	read, ok := configFormats()[strings.ToLower(filepath.Ext(file))]
	if !ok {
		return nil, errors.New("its name must end in .yaml, .yml, .toml, .json")
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	values, err := read(data)
	if err != nil {
		return nil, err
	}
	known := flagNames(cmd.Root())
	settings := make(map[string]any, len(values))
	for key, value := range values {
		name := strings.ToLower(key)
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("unknown key %q: valid are %s", key, strings.Join(known, ", "))
		}
		if _, twice := settings[name]; twice {
			return nil, fmt.Errorf("key %q stands there twice", name)
		}
		if err := checkSetting(cmd, name, value); err != nil {
			return nil, fmt.Errorf("key %q %w", key, err)
		}
		settings[name] = value
	}
	return settings, nil
}

// checkSetting returns an error if the flag name cannot take value.
func checkSetting(cmd *cobra.Command, name string, value any) error {
	list, isList := value.([]any)
	if !isList {
		list = []any{value}
	}
	for _, element := range list {
		switch element.(type) {
		case map[string]any:
			return errors.New("holds a map, which no flag takes")
		case []any:
			return errors.New("holds a list of lists, which no flag takes")
		}
	}
	if f := cmd.Flags().Lookup(name); isList && f != nil {
		if _, ok := f.Value.(pflag.SliceValue); !ok {
			return errors.New("holds a list: it takes one value")
		}
	}
	return nil
}

// flagNames returns the names of the flags of all commands, except those that only make
// sense on a command line.
func flagNames(root *cobra.Command) []string {
	var names []string
	for _, c := range append(root.Commands(), root) {
		c.LocalFlags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool {
		return name == "config" || name == "help" || name == "version"
	})
}

// configFormats returns the parsers by file extension. They return scalars as texts, or
// as something that fmt.Sprint formats as written.
func configFormats() map[string]func([]byte) (map[string]any, error) {
	return map[string]func([]byte) (map[string]any, error){
		".yaml": readYAML, ".yml": readYAML, ".toml": readTOML, ".json": readJSON,
	}
}

func readJSON(data []byte) (values map[string]any, err error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&values); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more after the first object")
	}
	return values, nil
}

func readYAML(data []byte) (map[string]any, error) {
	var nodes map[string]yaml.Node
	if err := yaml.Unmarshal(data, &nodes); err != nil {
		return nil, err
	}
	values := make(map[string]any, len(nodes))
	for key, node := range nodes {
		values[key] = yamlText(&node)
	}
	return values, nil
}

// yamlText returns the value of a node, scalars as written.
func yamlText(n *yaml.Node) any {
	switch n.Kind {
	case yaml.AliasNode:
		return yamlText(n.Alias)
	case yaml.MappingNode:
		return map[string]any{}
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, element := range n.Content {
			list[i] = yamlText(element)
		}
		return list
	default:
		if n.Tag == "!!null" {
			return nil
		}
		return n.Value
	}
}

func readTOML(data []byte) (values map[string]any, err error) {
	if err := toml.Unmarshal(data, &values); err != nil {
		return nil, err
	}
	var p unstable.Parser
	p.Reset(data)
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind != unstable.KeyValue {
			break // a table: all that follows is in one
		}
		key := e.Key()
		if key.Next(); key.IsLast() {
			values[string(key.Node().Data)] = tomlText(e.Value())
		}
	}
	return values, p.Error()
}

// tomlText returns the value of a node, scalars as written.
func tomlText(n *unstable.Node) any {
	switch n.Kind {
	case unstable.InlineTable:
		return map[string]any{}
	case unstable.Array:
		list := []any{}
		for elements := n.Children(); elements.Next(); {
			list = append(list, tomlText(elements.Node()))
		}
		return list
	default:
		return string(n.Data)
	}
}
