package main

import (
	"fmt"
	"slices"
)

// version is one release of CometBFT: a module below interop/ that pins it.
type version struct {
	// name is the module's directory and the name on the command line.
	name string
	// release is what people call it.
	release string
	// dialect is what monosign calls it.
	dialect string
	// nodePackage is the release's own node command.
	nodePackage string
	// transports to test, each with a node and with a client.
	transports []transport
	// extensions is the path in the genesis file that switches vote extensions on; nil where there are none.
	extensions []string
	// nonRPExtensions says that the node wants non-replay-protected extensions signed too.
	nonRPExtensions bool
}

func (v version) has(t transport) bool { return slices.Contains(v.transports, t) }

// transport is how signer and node talk.
type transport string

const (
	tcp   transport = "tcp"
	unix  transport = "unix"
	noise transport = "noise"
)

var (
	abciParams    = []string{"consensus_params", "abci", "vote_extensions_enable_height"}
	featureParams = []string{"consensus_params", "feature", "vote_extensions_enable_height"}
)

// versions lists all releases, oldest first.
var versions = []version{
	{name: "tm034", release: "Tendermint v0.34.24", dialect: "v0.34", nodePackage: "github.com/tendermint/tendermint/cmd/tendermint",
		transports: []transport{tcp}},
	{name: "cmt034", release: "CometBFT v0.34.35", dialect: "v0.34", nodePackage: "github.com/tendermint/tendermint/cmd/cometbft",
		transports: []transport{tcp}},
	{name: "cmt037", release: "CometBFT v0.37.18", dialect: "v0.37", nodePackage: "github.com/cometbft/cometbft/cmd/cometbft",
		transports: []transport{tcp}},
	{name: "cmt038", release: "CometBFT v0.38.26", dialect: "v0.38", nodePackage: "github.com/cometbft/cometbft/cmd/cometbft",
		transports: []transport{tcp, unix}, extensions: abciParams},
	{name: "cmt039", release: "CometBFT v0.39.4", dialect: "v0.39", nodePackage: "github.com/cometbft/cometbft/cmd/cometbft",
		transports: []transport{tcp}, extensions: abciParams},
	{name: "cmt040", release: "CometBFT v0.40.0", dialect: "v0.40", nodePackage: "github.com/cometbft/cometbft/cmd/cometbft",
		transports: []transport{tcp, noise}, extensions: abciParams},
	{name: "cmt10", release: "CometBFT v1.0.1", dialect: "v1.0", nodePackage: "github.com/cometbft/cometbft/cmd/cometbft",
		transports: []transport{tcp}, extensions: featureParams},
	{name: "cmt20", release: "CometBFT v2.0.0-rc1", dialect: "v2.0-rc", nodePackage: "github.com/cometbft/cometbft/v2/cmd/cometbft",
		transports: []transport{tcp}, extensions: featureParams, nonRPExtensions: true},
}

// selected returns the named versions, or all of them.
func selected(names []string) ([]version, error) {
	if len(names) == 0 {
		return versions, nil
	}
	var found []version
	for _, name := range names {
		v, ok := find(name)
		if !ok {
			return nil, fmt.Errorf("unknown version `%s`: choose from %s", name, allNames())
		}
		found = append(found, v)
	}
	return found, nil
}

func find(name string) (version, bool) {
	for _, v := range versions {
		if v.name == name {
			return v, true
		}
	}
	return version{}, false
}

func allNames() string {
	names := ""
	for i, v := range versions {
		if i > 0 {
			names += ", "
		}
		names += v.name
	}
	return names
}
