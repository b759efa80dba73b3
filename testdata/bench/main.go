// Command bench compares the speed of migrate with grpc-go's, and with what a
// bare TCP connection allows. It prints a table of medians and ratios. With
// -growth it measures how the cost of migrate grows with the number of
// instances, clients, reports, streams and requests.
//
// It starts itself again as the servers and clients that it measures. They
// listen and connect on loopback only, and end with it. It runs on Linux, in its
// own folder.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
)

func main() {
	err := run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == childWord {
		return runChild(args, stdin, stdout)
	}
	b := &bench{stderr: stderr}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	rows := flags.String("rows", "", "measure only the rows that this regular `expression` matches, written family: row")
	write := flags.String("write", "", "write the results to this Markdown `file`, too")
	flags.BoolVar(&b.growth, "growth", false, "measure how costs grow, in place of the comparison")
	flags.StringVar(&b.profiles, "profiles", "", "write CPU profiles of all servers and clients to this `folder`")
	flags.IntVar(&b.reps, "reps", 5, "how often each side of a row is measured")
	flags.Float64Var(&b.scale, "scale", 1, "how long each measurement takes, and how large it is, as a `factor`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	only, err := regexp.Compile(*rows)
	if err != nil {
		return fmt.Errorf("-rows: %w", err)
	}
	if b.reps < 1 || b.scale <= 0 {
		return errors.New("-reps and -scale must be above 0")
	}
	if b.program, err = program(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	t, err := b.table(ctx, only)
	if len(t.rows) > 0 {
		err = errors.Join(err, t.writeText(stdout))
	}
	if err != nil || *write == "" {
		return err
	}
	return b.writePage(*write, t, strings.Join(append([]string{"go run ."}, args...), " "))
}

// table measures the rows that match only.
func (b *bench) table(ctx context.Context, only *regexp.Regexp) (table, error) {
	if b.growth {
		results, err := b.allLaws(ctx, only)
		return lawTable(results), err
	}
	results, err := b.all(ctx, only)
	return tableOf(results), err
}
