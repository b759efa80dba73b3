//go:build unix

package cmd_test

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/request-migration/migrate/cmd"
	"github.com/request-migration/migrate/pkg/discovery/etcd/etcdtest"
	"github.com/request-migration/migrate/pkg/discovery/kubernetes/kubetest"
)

// TestMain makes this test's executable the migrate command too, and puts it on
// PATH.
func TestMain(m *testing.M) {
	// The tests mostly wait for other processes, so more of them than there are
	// processors can run at once.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){
		"churnclient": func() {
			if err := churnClient(os.Stdin, os.Stdout); err != nil { //nolint:forbidigo // as below
				panic(err)
			}
		},
		"migrate": func() { os.Exit(cmd.Main()) }, //nolint:forbidigo // it is the command's main function
	})
}

// TestScript runs the scripts of testdata/script, each in a directory and with a
// file store of its own, many at a time. See scriptCommands for what they can
// use beside testscript's own commands.
func TestScript(t *testing.T) {
	t.Parallel()
	// Under nohup the commands would inherit that SIGHUP is ignored.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	testscript.Run(t, scripts(testscript.Params{Dir: "../testdata/script"}, nil))
}

// TestTwoServersOverStores runs the two servers, each a process, over the stores that are
// services. What they print is the same as over the file store.
func TestTwoServersOverStores(t *testing.T) {
	t.Parallel()
	two := testscript.Params{Files: []string{"../testdata/script/twoservers.txtar"}}
	t.Run("etcd", func(t *testing.T) {
		t.Parallel()
		server := etcdtest.Start(t, etcdtest.Config{})
		testscript.Run(t, scripts(two, map[string]string{
			"DYN_STORE_KV": "etcd", "ETCD_ENDPOINTS": server.Endpoint(),
		}))
	})
	t.Run("kubernetes", func(t *testing.T) {
		t.Parallel()
		server := kubetest.Start(t, kubetest.Config{})
		server.Namespace("streams")
		testscript.Run(t, scripts(two, map[string]string{
			"DYN_STORE_KV": "kubernetes",
			"KUBECONFIG":   server.Kubeconfig(kubetest.User{Token: kubetest.AdminToken}, "streams"),
		}))
	})
}

// scripts completes what a run of scripts needs, with variables for each of them.
func scripts(p testscript.Params, variables map[string]string) testscript.Params {
	p.RequireExplicitExec = true
	p.RequireUniqueNames = true
	p.Cmds = scriptCommands()
	p.Setup = func(env *testscript.Env) error {
		env.Setenv("DYN_FILE_KV", filepath.Join(env.WorkDir, "kv"))
		env.Vars = append(env.Vars, instrumentation()...)
		env.Setenv("NOTEXT", "\xff") // not UTF-8, which a script cannot contain
		for name, value := range variables {
			env.Setenv(name, value)
		}
		s := &scriptState{processes: map[string]*process{}}
		env.Values[stateKey{}] = s
		env.Defer(s.end)
		return nil
	}
	return p
}

// scriptState is the state of a script beside its files.
type scriptState struct {
	processes map[string]*process
	trees     map[string]map[string]string // by directory, a description of each file
}

type stateKey struct{}

func stateOf(ts *testscript.TestScript) *scriptState {
	return ts.Value(stateKey{}).(*scriptState)
}

// end ends the processes that still run.
func (s *scriptState) end() {
	for _, p := range s.processes {
		p.kill()
	}
}

type scriptCommand func(ts *testscript.TestScript, args []string) error

// scriptCommands are the commands of the scripts:
//
//	exits CODE [KEY=VALUE…] COMMAND [ARG…]
//		runs a command, which must exit with CODE.
//	fails CODE [KEY=VALUE…] COMMAND [ARG…]
//		the same, and what it prints must be one line that begins with
//		"Error: ", on standard error.
//	start NAME [KEY=VALUE…] COMMAND [ARG…]
//		starts a command in the background.
//	serve NAME [KEY=VALUE…] [FLAG…]
//		starts `migrate serve` with that SERVER_NAME, and waits until it is
//		registered.
//	await NAME stdout|stderr PATTERN [COUNT]
//		waits until a background command has printed what matches.
//	signal NAME KILL|TERM|INT|HUP
//		sends a signal to a background command.
//	ended NAME CODE
//		waits for the end of a background command, which must exit with CODE
//		(128 and the signal's number if one ends it); its output is then what
//		stdout and stderr look at.
//	waitinstances COUNT [ARG…]
//		waits until `migrate instances ARG…` lists so many.
//	receipts COUNT [FIELD=VALUE…]
//		checks the last standard output as that of --output json: so many
//		requests, and in each receipt these values (see event.field). A value
//		may be a choice, as a|b.
//	breaks COUNT
//		checks how many breaks there are in all of the same.
//	occupy VARIABLE
//		listens on a free address and sets the variable to it.
//	address VARIABLE
//		sets the variable to an address where servers can listen one after the
//		other, on a loopback address of its own, which nobody else is given.
//	remember DIR, untouched DIR
//		notes what is in a directory; fails if that has changed since.
//	jsonlines COUNT
//		checks that the last standard error is at least so many JSON objects,
//		one a line, with time, level, msg and component.
func scriptCommands() map[string]func(*testscript.TestScript, bool, []string) {
	commands := map[string]scriptCommand{
		"exits": scriptExits, "fails": scriptFails,
		"start": scriptStart, "serve": scriptServe, "await": scriptAwait,
		"signal": scriptSignal, "ended": scriptEnded, "waitinstances": scriptWaitInstances,
		"receipts": scriptReceipts, "breaks": scriptBreaks, "occupy": scriptOccupy, "address": scriptAddress,
		"remember": scriptRemember, "untouched": scriptUntouched,
		"jsonlines": scriptJSONLines,
	}
	wrapped := make(map[string]func(*testscript.TestScript, bool, []string), len(commands))
	for name, command := range maps.All(commands) {
		wrapped[name] = func(ts *testscript.TestScript, neg bool, args []string) {
			if neg {
				ts.Fatalf("%s can't be negated", name)
			}
			if err := command(ts, args); err != nil {
				ts.Fatalf("%s: %v", name, err)
			}
		}
	}
	return wrapped
}

var errUsage = errors.New("wrong number of arguments, see scriptCommands")

// scriptExits implements the command exits.
func scriptExits(ts *testscript.TestScript, args []string) error {
	if len(args) < 2 {
		return errUsage
	}
	p, err := startScripted(ts, args[1:])
	if err != nil {
		return err
	}
	defer p.kill()
	return finish(ts, p, args[0])
}

// scriptFails implements the command fails.
func scriptFails(ts *testscript.TestScript, args []string) error {
	if err := scriptExits(ts, args); err != nil {
		return err
	}
	// ts shows what was written to it only after this command has ended.
	stdout, stderr := fmt.Sprint(ts.Stdout()), fmt.Sprint(ts.Stderr())
	if stdout != "" {
		return fmt.Errorf("standard output is %q, want none", stdout)
	}
	if !strings.HasPrefix(stderr, "Error: ") || strings.Count(stderr, "\n") != 1 || !strings.HasSuffix(stderr, "\n") {
		return fmt.Errorf("standard error is %q, want one line that begins with Error", stderr)
	}
	return nil
}

// startScripted starts the command that args are, with variables in front.
func startScripted(ts *testscript.TestScript, args []string) (*process, error) {
	env := []string{"PWD=" + ts.MkAbs(".")}
	for len(args) > 0 && strings.Contains(args[0], "=") {
		env, args = append(env, args[0]), args[1:]
	}
	if len(args) == 0 {
		return nil, errUsage
	}
	return start(ts.MkAbs("."), append(scriptEnv(ts), env...), nil, args...)
}

// scriptEnv is the environment of the script, as far as it matters to the
// command.
func scriptEnv(ts *testscript.TestScript) []string {
	var env []string
	for _, name := range append(commandVariables(), "PATH", "HOME", "TMPDIR", "WORK") {
		if value := ts.Getenv(name); value != "" {
			env = append(env, name+"="+value)
		}
	}
	return append(env, instrumentation()...)
}

// commandVariables are the variables that the command reads.
func commandVariables() []string {
	return []string{
		"DYN_STORE_KV", "DYN_DISCOVERY_BACKEND", "DYN_FILE_KV", "DYN_ENDPOINT", "ETCD_ENDPOINTS", "KUBECONFIG",
		"MIGRATE_LOG", "MIGRATE_LOG_FORMAT", "SERVER_NAME", "FAILURE_MODE",
	}
}

// finish waits for the end of p, makes its output the script's last, and checks
// the exit code.
func finish(ts *testscript.TestScript, p *process, want string) error {
	code, err := p.wait()
	if err != nil {
		return err
	}
	_, _ = io.WriteString(ts.Stdout(), p.stdout.String()) // to memory
	_, _ = io.WriteString(ts.Stderr(), p.stderr.String())
	if got := strconv.Itoa(code); got != want {
		return fmt.Errorf("the exit code is %s, want %s", got, want)
	}
	return p.sound()
}

// names lists what a script has started, for its mistakes.
func (s *scriptState) names() string {
	return strings.Join(slices.Sorted(maps.Keys(s.processes)), ", ")
}

func (s *scriptState) find(name string) (*process, error) {
	if p := s.processes[name]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("nothing was started as %q, only %s", name, s.names())
}
