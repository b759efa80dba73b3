package etcdtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// program returns the path of the etcd program, and builds it if this version has not
// been built yet. Any number of test binaries may call it at the same time.
func program(ctx context.Context) (string, error) {
	source, err := sourceDir()
	if err != nil {
		return "", err
	}
	version, err := sourceHash(source)
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the cache folder for the etcd program: %w", err)
	}
	dir := filepath.Join(cache, "migrate-etcdtest")
	path := filepath.Join(dir, "etcd-"+version)
	if runtime.GOOS == "windows" {
		path += ".exe"
	}
	if isFile(path) {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("making the cache folder for the etcd program: %w", err)
	}

	// Packages are tested in parallel. The lock saves them from building the program
	// twice; it would be correct without, because of the rename in compile.
	unlock, err := lock(path + ".lock")
	if err != nil {
		return "", fmt.Errorf("locking the etcd program's build: %w", err)
	}
	defer unlock()
	if isFile(path) {
		return path, nil
	}
	return path, compile(ctx, source, path)
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// compile builds the program in source and moves it to path.
func compile(ctx context.Context, source, path string) error {
	tmp, err := os.MkdirTemp(filepath.Dir(path), "build-")
	if err != nil {
		return fmt.Errorf("making a folder to build etcd in: %w", err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()

	built := filepath.Join(tmp, "etcd")
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", built, ".")
	cmd.Dir = source
	// The caller's flags and workspace are meant for another module. cgo would need a
	// C compiler for nothing.
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the etcd program in %s: %w\n%s", source, err, out)
	}
	if err := os.Rename(built, path); err != nil {
		return fmt.Errorf("keeping the etcd program: %w", err)
	}
	return nil
}

// sourceDir finds testdata/etcd from a test's working directory, which is its package's
// directory.
func sourceDir() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the etcd program's source: %w", err)
	}
	for dir := start; ; {
		source := filepath.Join(dir, "testdata", "etcd")
		if isFile(filepath.Join(source, "go.mod")) {
			return source, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("finding the etcd program's source: no testdata/etcd in a folder above " + start)
		}
		dir = parent
	}
}

// sourceHash returns a hash of the module's files and the compiler's version.
func sourceHash(source string) (string, error) {
	h := sha256.New()
	_, _ = fmt.Fprintln(h, runtime.Version(), runtime.GOOS, runtime.GOARCH) // never fails
	for _, name := range []string{"go.mod", "go.sum", "main.go"} {
		content, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			return "", fmt.Errorf("reading the etcd program's source: %w", err)
		}
		_, _ = fmt.Fprintln(h, name, len(content))
		h.Write(content)
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}
