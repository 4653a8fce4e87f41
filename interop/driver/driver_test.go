package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	start1  = "$ /bin/cometbft start --home x"
	block   = "I[…] finalizing commit of block   module=consensus height=23"
	refusal = `E[…] failed signing vote   module=consensus err="step regression"`
)

func TestNodeLogMayShowRefusalsOnlyBetweenAKillAndTheNextBlock(t *testing.T) {
	for name, test := range map[string]struct {
		lines []string
		fine  bool
	}{
		"no refusal":                     {[]string{start1, block}, true},
		"refusal before any kill":        {[]string{start1, refusal, block}, false},
		"refusal in recovery":            {[]string{start1, block, start1, refusal, block}, true},
		"refusal after recovery":         {[]string{start1, block, start1, block, refusal}, false},
		"consensus failure in recovery":  {[]string{start1, block, start1, "E[…] CONSENSUS FAILURE!!!", block}, false},
		"refusal in colours, as v2 does": {[]string{start1, block, "\x1b[91mERR\x1b[0m Failed \x1b[2msigning vote"}, false},
	} {
		file := filepath.Join(t.TempDir(), "node.log")
		if err := os.WriteFile(file, []byte(strings.Join(test.lines, "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		c := chain{node: &node{log: file}}
		if err := c.checkNodeLog(); (err == nil) != test.fine {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTomlEditsOnlyTheSectionItIsTold(t *testing.T) {
	config := tomlFile("laddr = \"a\"\n[rpc]\n# laddr = \"comment\"\nladdr = \"b\"\nladdr_max = 1\n[p2p]\nladdr = \"c\"\n")
	config.set("rpc", "laddr", `"x"`)
	config.set("rpc", "missing", "1")
	want := "laddr = \"a\"\n[rpc]\n# laddr = \"comment\"\nladdr = \"x\"\nladdr_max = 1\n[p2p]\nladdr = \"c\"\n"
	if string(config) != want {
		t.Errorf("got %q", config)
	}
}

func TestUnknownVersionsAreRefused(t *testing.T) {
	if _, err := selected([]string{"cmt038", "v0.38"}); err == nil {
		t.Error("`v0.38` was taken")
	}
	if all, err := selected(nil); err != nil || len(all) != len(versions) {
		t.Errorf("no names select %d versions: %v", len(all), err)
	}
}
