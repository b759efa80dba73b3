package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// usage is the CPU time that this process has used, in user and system mode.
func usage() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("asking for the CPU time: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// The kinds of memory, in bytes.
const (
	resident = "resident" // what the system counts
	live     = "live"     // objects that are in use, and stacks
	peak     = "peak"     // the most that the system has counted so far

	goroutines = "goroutines" // how many there are; no bytes
)

// memory is what this process holds once all garbage is collected and returned
// to the system.
func memory() (map[string]float64, error) {
	runtime.GC()
	runtime.GC() // what pools held at the first is free at the second
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	rss, err := residentBytes("self")
	if err != nil {
		return nil, fmt.Errorf("asking for the memory: %w", err)
	}
	most, err := peakBytes()
	if err != nil {
		return nil, fmt.Errorf("asking for the memory: %w", err)
	}
	return map[string]float64{
		resident:   rss,
		live:       float64(m.HeapAlloc + m.StackInuse),
		peak:       most,
		goroutines: float64(runtime.NumGoroutine()),
	}, nil
}

// residentBytes returns what a process holds.
func residentBytes(pid string) (float64, error) {
	statm, err := os.ReadFile("/proc/" + pid + "/statm")
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(statm))
	if len(fields) < 2 {
		return 0, fmt.Errorf("/proc/%s/statm reads %q", pid, statm)
	}
	pages, err := strconv.ParseFloat(fields[1], 64)
	return pages * float64(os.Getpagesize()), err
}

// peakBytes returns the most memory that this process has had. What getrusage
// tells would count the process that started this one.
func peakBytes() (float64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(status), "\nVmHWM:")
	value, _, _ := strings.Cut(rest, " kB\n")
	kibibytes, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
	return kibibytes * 1024, err
}

// startProfile writes a CPU profile to a file until stop is called. Without a
// path it does nothing.
func startProfile(path string) (stop func() error, err error) {
	if path == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("writing a profile: %w", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, fmt.Errorf("writing a profile: %w", errors.Join(err, f.Close()))
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}
