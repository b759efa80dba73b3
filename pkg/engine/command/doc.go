// Package command makes any program that reads a question and prints an answer a
// streaming service: an [Engine] is a [stream.Handler] that runs a process for
// each request.
//
// # What the program gets
//
// The request's data is the program's standard input: a string as it is,
// without a newline added, any other JSON value as JSON. Its environment is
// [Config.Env] and:
//
//	MIGRATE_REQUEST_ID  the request's id, the same over all attempts; unset if it has none
//	MIGRATE_ATTEMPT     1, 2, …
//	MIGRATE_FROM        index of the first item wanted; 0 unless the program resumes
//	MIGRATE_PREFIX      with [ResumePrefix], a file with the items so far as the program wrote
//	                    them: lines and chunks one after the other, JSON one a line; unset if
//	                    there are none. Only this user can read it, and it is gone afterwards.
//	TRACEPARENT, TRACESTATE, BAGGAGE
//	                    the request's headers of those names; unset if absent
//
// # What the program says
//
// What it writes to its standard output becomes items at once, as [Items]
// says. The answer is text in UTF-8: each byte that is not becomes U+FFFD.
// Programs that write something else encode it, for example as base64.
//
// How the program ends is how the stream ends:
//
//	exit code 0      the answer is complete
//	exit code 75     (EX_TEMPFAIL) the stream breaks, and the client carries on elsewhere
//	a signal         the same; the server is not reported down, since one process says nothing about it
//	any other code   the request's own error, with the last 4 KiB of standard error; nobody retries
//
// A last line without its newline is an item when the program exits, and is
// left out when the stream breaks. The output belongs to the program's
// children too: it has ended when nobody holds it. A process that still holds
// it, and writes nothing for [Config.Grace] after the program has ended, makes
// the request fail: what such an answer lacks, nobody knows.
//
// A program that cannot be started any more breaks the stream, and its server
// is reported down; where the machine lacks processes, memory or files, or the
// program is being written, the request is refused as overloaded.
//
// # How it ends
//
// The program is the first process of a group of its own. When the client
// cancels, or the stream breaks in any other way, the whole group gets SIGTERM,
// and SIGKILL after [Config.Grace]. When the program has ended, what is left of
// its group gets SIGKILL. The handler returns after all of that, so that a
// server that drains waits for its programs.
//
// No program outlives its server, even if that is killed with SIGKILL. On Linux
// the kernel then kills the program (PR_SET_PDEATHSIG). On every Unix a
// supervisor, a small /bin/sh that waits for the server's end, kills the groups
// that are left, and removes the files of MIGRATE_PREFIX. Where there is no
// /bin/sh, a warning says so, and on Linux only the program itself is killed.
// What leaves its group (setsid) is beyond reach. On Windows there are no groups
// and no supervisor: the program alone is ended, and it outlives a server that is
// killed.
//
// A program is read as fast as the client reads, so one whose client is slow
// waits in its writes, and nothing but an item of each answer is in memory.
package command
