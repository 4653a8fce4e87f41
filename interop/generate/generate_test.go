package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestCopiesAreUpToDate(t *testing.T) {
	for _, target := range targets {
		want, err := render("..", target.replacements)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join("..", target.path))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("`%s` differs from `%s`: run `go run ./generate`", target.path, source)
		}
	}
}
