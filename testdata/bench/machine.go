package main

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
)

// machine describes what the figures were measured on.
func machine() string {
	text := fmt.Sprintf("%s, %d cores, Linux %s, %s %s/%s, GOMAXPROCS %d in each process, grpc-go %s",
		cmp.Or(cpuModel(), "unknown CPU"), runtime.NumCPU(), cmp.Or(firstLine("/proc/sys/kernel/osrelease"), "unknown"),
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), cmp.Or(grpcVersion(), "of an unknown version"))
	for _, program := range [][]string{{"nginx", "-v"}, {"litellm", "--version"}} {
		said, err := exec.Command(program[0], program[1:]...).CombinedOutput()
		if version := regexp.MustCompile(`\d+\.\d+\.\d+`).Find(said); err == nil && version != nil {
			text += fmt.Sprintf(", %s %s", program[0], version)
		}
	}
	return text
}

func cpuModel() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	for lines := bufio.NewScanner(bytes.NewReader(info)); lines.Scan(); {
		if key, value, _ := strings.Cut(lines.Text(), ":"); strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func firstLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

func grpcVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, m := range info.Deps {
		if m.Path == "google.golang.org/grpc" {
			return m.Version
		}
	}
	return ""
}
