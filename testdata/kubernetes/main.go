// Command kubernetes builds a Kubernetes API server for tests, and the controllers that
// collect its garbage, from the sources that go.mod names. It prints the folder of the
// programs on standard output, for MIGRATE_KUBERNETES:
//
//	MIGRATE_KUBERNETES=$(go -C testdata/kubernetes run .) go test ./pkg/discovery/kubernetes/...
//
// Building takes five minutes on two cores, 2 GB of memory and the Go module proxy. The
// programs stay in the user's cache folder, by version.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	dir, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kubernetes:", err)
		os.Exit(1)
	}
	fmt.Println(dir)
}

// run builds what is missing and returns the folder.
func run() (string, error) {
	version, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes").Output()
	if err != nil {
		return "", fmt.Errorf("finding the version: %w", err)
	}
	tag := strings.TrimSpace(string(version))
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the cache folder: %w", err)
	}
	dir := filepath.Join(cache, "migrate-ci", "kubernetes-"+strings.TrimPrefix(tag, "v"))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("making the folder: %w", err)
	}
	for _, name := range []string{"kube-apiserver", "kube-controller-manager"} {
		if err := build(dir, name, tag); err != nil {
			return "", fmt.Errorf("building %s %s: %w", name, tag, err)
		}
	}
	return dir, nil
}

// build builds a program unless the folder has it.
func build(dir, name, tag string) error {
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	fmt.Fprintf(os.Stderr, "building %s %s (some minutes)\n", name, tag)
	tmp, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()

	// Without a version the programs don't start: they compare it with their features'.
	numbers := strings.SplitN(strings.TrimPrefix(tag, "v"), ".", 3)
	const version = "-X k8s.io/component-base/version."
	link := "-s -w " + version + "gitVersion=" + tag + " " + version + "gitMajor=" + numbers[0] + " " + version + "gitMinor=" + numbers[1]
	built := filepath.Join(tmp, name)
	// Without optimization the build takes half as long.
	cmd := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-gcflags=all=-N -l -dwarf=false",
		"-ldflags="+link, "-o", built, "k8s.io/kubernetes/cmd/"+name)
	// The caller's flags and workspace are meant for another module. cgo would need a C
	// compiler for nothing.
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return err
	}
	// Whoever builds at the same time makes the same.
	return os.Rename(built, path)
}
