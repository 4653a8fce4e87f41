package main

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// builder compiles each release's node and client once and keeps them.
type builder struct {
	// interop is the directory that holds the modules, cache where binaries are kept.
	interop, cache string
}

// node returns the release's own node binary.
func (b builder) node(v version) (string, error) {
	module := filepath.Join(b.interop, v.name)
	return b.build(v, "node", v.nodePackage, filepath.Join(module, "go.mod"), filepath.Join(module, "go.sum"))
}

// client returns the program that asks for signatures with the release's own code.
func (b builder) client(v version) (string, error) {
	sources := []string{filepath.Join(b.interop, v.name), filepath.Join(b.interop, "suite")}
	adapters, err := filepath.Glob(filepath.Join(b.interop, "adapter*"))
	if err != nil {
		return "", err
	}
	return b.build(v, "client", ".", append(sources, adapters...)...)
}

// build compiles a package within the version's module, so that its go.sum pins every dependency.
// The binary's name holds a hash of the sources: what is there is up to date.
func (b builder) build(v version, kind, pkg string, sources ...string) (string, error) {
	hash, err := hashFiles(sources)
	if err != nil {
		return "", err
	}
	stem := filepath.Join(b.cache, v.name+"-"+kind+"-")
	binary := stem + hash
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	fmt.Printf("building the %s of %s\n", kind, v.release)
	if err := os.MkdirAll(b.cache, 0o755); err != nil {
		return "", err
	}
	removeAll(stem + "*")
	// -p 2 leaves room on small machines; no cgo, so that Go is all it takes.
	partial := binary + ".partial"
	build := exec.Command("go", "build", "-p", "2", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", partial, pkg)
	build.Dir = filepath.Join(b.interop, v.name)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-mod=readonly")
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the %s of %s: %w\n%s", kind, v.release, err, output)
	}
	return binary, os.Rename(partial, binary)
}

// hashFiles hashes the Go sources and module files among the given files and below the given directories.
func hashFiles(roots []string) (string, error) {
	hash := sha256.New()
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !isSource(path) {
				return err
			}
			data, err := os.ReadFile(path)
			fmt.Fprintf(hash, "%s %d\n%s", filepath.Base(path), len(data), data)
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%x", hash.Sum(nil)[:6]), nil
}

func isSource(path string) bool {
	base := filepath.Base(path)
	return base == "go.mod" || base == "go.sum" || strings.HasSuffix(base, ".go")
}

func removeAll(pattern string) {
	matches, _ := filepath.Glob(pattern)
	for _, match := range matches {
		_ = os.Remove(match)
	}
}
