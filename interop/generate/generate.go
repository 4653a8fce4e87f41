// Command generate writes the copies of adapter037/adapter.go for releases whose packages have other import paths.
// Run it in the interop directory: go run ./generate
package main

import (
	"fmt"
	"go/format"
	"os"
	"path/filepath"
	"strings"
)

const source = "adapter037/adapter.go"

// targets lists each copy with its import paths; earlier replacements win.
var targets = []struct {
	path         string
	replacements *strings.Replacer
}{
	{"adapter034/adapter.go", strings.NewReplacer(
		`"github.com/cometbft/cometbft/`, `"github.com/tendermint/tendermint/`,
	)},
	{"cmt10/adapter/adapter.go", strings.NewReplacer(
		`"github.com/cometbft/cometbft/proto/tendermint/privval"`, `"github.com/cometbft/cometbft/api/cometbft/privval/v1"`,
		`"github.com/cometbft/cometbft/proto/tendermint/types"`, `"github.com/cometbft/cometbft/api/cometbft/types/v1"`,
	)},
	{"cmt20/adapter/adapter.go", strings.NewReplacer(
		`"github.com/cometbft/cometbft/proto/tendermint/privval"`, `"github.com/cometbft/cometbft/api/cometbft/privval/v2"`,
		`"github.com/cometbft/cometbft/proto/tendermint/types"`, `"github.com/cometbft/cometbft/api/cometbft/types/v2"`,
		`"github.com/cometbft/cometbft/`, `"github.com/cometbft/cometbft/v2/`,
		"log.NewTMLogger(log.NewSyncWriter(os.Stderr))", "log.NewLogger(os.Stderr)",
	)},
}

func main() {
	for _, target := range targets {
		text, err := render(".", target.replacements)
		if err == nil {
			err = os.WriteFile(target.path, text, 0o644)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			os.Exit(1)
		}
	}
}

// render reads the source below dir and changes its import paths.
func render(dir string, replacements *strings.Replacer) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(dir, source))
	if err != nil {
		return nil, err
	}
	header := "// Code generated from " + source + " by the generate command. DO NOT EDIT.\n\n"
	return format.Source([]byte(header + replacements.Replace(string(text))))
}
