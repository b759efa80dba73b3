package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// growthHeading begins the last section of the page, which the growth laws are.
const growthHeading = "\n## Growth\n"

// writePage puts what was measured in the place that it has on the page at
// path, and leaves the other measurement's part as it is.
func (b *bench) writePage(path string, t table, command string) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	head, growth, found := strings.Cut(string(old), growthHeading)
	if found {
		growth = growthHeading + growth
	}
	if b.growth {
		growth = growthHeading + fmt.Sprintf(growthSection, command, machine(), b.reps, t.markdown(), t.score)
	} else {
		head = fmt.Sprintf(page, command, machine(), b.reps, t.markdown(), t.score)
	}
	return os.WriteFile(path, []byte(head+growth), 0o644)
}

// page is what stands around the table.
const page = `# Benchmarks

The speed of migrate beside grpc-go's, and beside the limit of a bare TCP
connection; and that of its gateway beside other HTTP proxies'. All but the last section, Growth, is written by

    make bench

which runs ` + "`%s`" + ` in testdata/bench.

Measured on: %s.

Each figure is the median of %d repetitions, with the lowest and the highest in
brackets. The ratio is ours over the other side's: of the medians, and in
brackets the extremes of repetitions that ran one after the other. The last two
columns are what the project has set itself to reach, and then to go on to.

%s
%s

## What is measured

- **gRPC** is grpc-go with default options: one client connection, server
  streaming, ` + "`wrapperspb.StringValue`" + ` both ways, plaintext.
- **raw TCP** is a server that writes the lines, made beforehand, in 64 KiB
  chunks, and a client that only counts newlines. It can tell no stream from
  another and no end from a break: it is what the connection itself allows. For
  the break, it is the floor: a client that waits on the socket that is closed,
  and then asks another server over a connection that stands.
- **the pipe** is a command, ` + "`cat`" + ` of a file with 200 MB of lines, whose output is
  read in 64 KiB pieces and dropped.
- **migrate** is ` + "`pkg/stream`" + ` as it comes, and for the break ` + "`pkg/router`" + ` with Resume
  above it.

- **the gateway** is ` + "`migrate gateway --engine`" + ` between an OpenAI client and an engine,
  and the same with a file store and ` + "`migrate serve --openai`" + ` between. The engine says that
  it is vLLM, and counts tokens in each chunk if it is asked to.
- **nginx** has HTTP/1.1 and kept connections to the engine, and does not buffer.
  **ReverseProxy** is Go's own, which flushes at once. **LiteLLM** is its proxy as it
  comes; its rows are there where ` + "`litellm`" + ` is installed, nginx's where nginx is.

An item reads ` + "`from server: server1, data: h`" + `. A short request has 11 items. Paced
items carry the time they were sent in place of the last character. CPU is user
and system time of the client's process and the servers' together, from
getrusage. For the
gateway it is the proxy's processes' alone, which the kernel counts for each thread.
Added is what a request by way of the proxy has more than one to the engine itself.
Memory is what the system counts as resident once garbage has been
collected and free memory returned, less the same with one connection and no
stream, for each stream. The break is timed from just before the server closes
its socket to the next item at the client, on the machine's one clock.

## How both sides are kept fair

- Server and client are processes of their own, connected over loopback; only
  allocations, choosing and a command are measured inside one process. Every process has
  the same GOMAXPROCS and Go's default garbage collection.
- Both sides run the same handler and the same client code, but for the adapter
  of a few lines that calls the library. The request is the same text. Plain
  items are made once and sent again and again, on both sides; paced ones are
  made one by one, on both sides.
- The client counts the items of each answer and compares the last one's text. A
  wrong answer ends the run. gRPC hands over each item as a decoded string, ours
  as the JSON value of one, which was checked to be one; paced items are turned
  into strings on both sides.
- Nothing logs. Before what counts there are warm-up runs, but for the idle
  streams, each of whose repetitions has fresh processes.
- The sides take turns: a repetition runs each of them once, and each repetition
  begins with another one. Idle processes of the side whose turn it is not wait
  on their sockets.
- What stands between a client and an engine is another program each time; client
  and engine are the same. A stream of the gateway's memory row gets a chunk every
  100 ms, and what it has grown by in 2 s is counted, garbage included.
- Idle streams share connections as the client of each side makes them share:
  all of them one connection with gRPC, 128 each with ours.
- After a break, gRPC's client goes on as a careful caller of round_robin would:
  it opens the stream again at once, at the item that is missing, until a server
  takes it.
`

// growthSection is the part of the page that is about growth.
const growthSection = `
How the cost of migrate grows with the number of instances, clients, reports,
streams and requests. The section is written by

    make bench-growth

which runs ` + "`%s`" + ` in testdata/bench.

Measured on: %s.

Each figure is the median of %d repetitions, with the lowest and the highest in
brackets. The exponent is the slope of the figure's logarithm against that of N:
0 is flat, 1 linear, 2 quadratic. Its bound leaves room for noise. The last
column is what the figure at the largest N must keep to, in the median, and what
is missing or left over in the worst repetition.

%s
%s

- **Servers at rest** have a store each, as processes of their own would. The CPU
  is that of all servers, clients and of etcd together.
- **A client** is ` + "`pkg/router`" + ` over ` + "`pkg/discovery`" + `, as in ` + "`migrate request`" + `: it
  follows the instances and the reports about them. It is a process of its own;
  the CPU and the memory that are given are that process's alone.
- **etcd** is a real one, a single member that does not wait for its disk.
- **A change** is an instance that joins or leaves.
- **Standing reports** take N of 1,000 instances out. The request is the whole
  ` + "`migrate request`" + `, from its start to its end, against one to the same instances
  in another store, where one report stands; the two take turns.
- **An idle client** reaches etcd by way of a relay that counts the bytes of all
  its connections, both ways, for 10 s in which nobody writes. Lists and requests
  are those that etcd has counted, without watches and keep-alives.
- **Streams, answers and requests** have server and client as processes of their
  own, connected over loopback, and the items of the rows above.
`
