//go:build unix

package cmd_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// registered is what a server logs once clients can find it.
const registered = "Server initialized: name="

func scriptStart(ts *testscript.TestScript, args []string) error {
	if len(args) < 2 {
		return errUsage
	}
	s := stateOf(ts)
	if s.processes[args[0]] != nil {
		return fmt.Errorf("%s was started before", args[0])
	}
	p, err := startScripted(ts, args[1:])
	if err != nil {
		return err
	}
	s.processes[args[0]] = p
	return nil
}

func scriptServe(ts *testscript.TestScript, args []string) error {
	if len(args) < 1 {
		return errUsage
	}
	name, args := args[0], args[1:]
	line := []string{name, "SERVER_NAME=" + name}
	for len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		line, args = append(line, args[0]), args[1:]
	}
	if err := scriptStart(ts, append(append(line, "migrate", "serve"), args...)); err != nil {
		return err
	}
	p := stateOf(ts).processes[name]
	return p.await(p.stderr, registered, 1)
}

func scriptAwait(ts *testscript.TestScript, args []string) error {
	if len(args) < 3 || len(args) > 4 {
		return errUsage
	}
	p, err := stateOf(ts).find(args[0])
	if err != nil {
		return err
	}
	of, count := p.stdout, 1
	if args[1] == "stderr" {
		of = p.stderr
	}
	if len(args) == 4 {
		if count, err = strconv.Atoi(args[3]); err != nil {
			return err
		}
	}
	return p.await(of, args[2], count)
}

func scriptSignal(ts *testscript.TestScript, args []string) error {
	if len(args) != 2 {
		return errUsage
	}
	p, err := stateOf(ts).find(args[0])
	if err != nil {
		return err
	}
	sig, ok := map[string]syscall.Signal{"KILL": syscall.SIGKILL, "TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP}[args[1]]
	if !ok {
		return fmt.Errorf("unknown signal %s", args[1])
	}
	return p.signal(sig)
}

func scriptEnded(ts *testscript.TestScript, args []string) error {
	if len(args) != 2 {
		return errUsage
	}
	s := stateOf(ts)
	p, err := s.find(args[0])
	if err != nil {
		return err
	}
	err = finish(ts, p, args[1])
	delete(s.processes, args[0])
	p.kill()
	return err
}

func scriptWaitInstances(ts *testscript.TestScript, args []string) error {
	if len(args) < 1 {
		return errUsage
	}
	want, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(patience); ; {
		list, err := listInstances(ts.MkAbs("."), scriptEnv(ts), args[1:]...)
		if err != nil {
			return err
		}
		if len(list.Source) == want {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("still %d instances after %v, want %d", len(list.Source), patience, want)
		}
		time.Sleep(pollInterval)
	}
}

// pollInterval is the pause between looks at the store, for what happens in another
// process without an event here.
const pollInterval = 50 * time.Millisecond

// instancesList is the output of `migrate instances --output json`.
type instancesList struct {
	Endpoint  string
	Source    []string `json:"instance_source"`
	Avail     []string `json:"instance_avail"`
	Instances []struct {
		ID, Name, Address, Transport string
		Source, Avail                bool
	}
}

func listInstances(dir string, env []string, args ...string) (instancesList, error) {
	p, err := start(dir, env, nil, append([]string{"migrate", "instances", "--output", "json"}, args...)...)
	if err != nil {
		return instancesList{}, err
	}
	defer p.kill()
	if code, err := p.wait(); err != nil || code != 0 {
		return instancesList{}, fmt.Errorf("listing instances exits with %d (%w): %s", code, err, p.stderr)
	}
	var list instancesList
	if err := json.Unmarshal([]byte(p.stdout.String()), &list); err != nil {
		return instancesList{}, err
	}
	return list, p.sound()
}

func scriptReceipts(ts *testscript.TestScript, args []string) error {
	if len(args) < 1 {
		return errUsage
	}
	all, err := parseEvents(ts.ReadFile("stdout"))
	if err != nil {
		return err
	}
	if got := strconv.Itoa(len(all)); got != args[0] {
		return fmt.Errorf("there are %s requests, want %s", got, args[0])
	}
	for i, r := range all {
		for _, arg := range args[1:] {
			name, want, _ := strings.Cut(arg, "=")
			got, err := r.receipt().field(name)
			if err != nil {
				return err
			}
			if !slices.Contains(strings.Split(want, "|"), got) {
				return fmt.Errorf("request %d of %d has %s=%s, want %s", i+1, len(all), name, got, want)
			}
		}
	}
	return nil
}

func scriptBreaks(ts *testscript.TestScript, args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	all, err := parseEvents(ts.ReadFile("stdout"))
	if err != nil {
		return err
	}
	breaks := 0
	for _, r := range all {
		for _, e := range r {
			if e.Type == "break" {
				breaks++
			}
		}
	}
	if got := strconv.Itoa(breaks); got != args[0] {
		return fmt.Errorf("there are %s breaks in all, want %s", got, args[0])
	}
	return nil
}

func scriptJSONLines(ts *testscript.TestScript, args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	want, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	lines := 0
	for line := range strings.Lines(ts.ReadFile("stderr")) {
		var record map[string]any
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			return fmt.Errorf("%w in line: %s", err, line)
		}
		for _, key := range []string{"time", "level", "msg", "component"} {
			if _, ok := record[key].(string); !ok {
				return fmt.Errorf("no %s in line: %s", key, line)
			}
		}
		lines++
	}
	if lines < want {
		return fmt.Errorf("there are %d lines, want %d", lines, want)
	}
	return nil
}
