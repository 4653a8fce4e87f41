// Command cmt040 drives a signer with the privval code of CometBFT v0.40, over noise:// too.
package main

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"strings"

	cmted25519 "github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/cometbft/cometbft/privval"
	"github.com/libp2p/go-libp2p/core/peer"

	adapter "monosign.interop/adapter037"
	"monosign.interop/adapter038"
	"monosign.interop/suite"
)

func main() {
	suite.Main(suite.Release{
		Name:       "cmt040",
		Extensions: true,
		// 1 MiB of extension and some more: signer_endpoint.go, maxRemoteSignerMsgSize.
		ReferenceMaxMessage: 1<<20 + 1024,
		Listen:              adapter.Listen(adapter038.V038, listen),
		Reference:           adapter.Reference,
	})
}

// listen adds noise://<signer's peer id>@host:port to the transports of the older releases.
func listen(at suite.Listener) (net.Listener, error) {
	if !strings.HasPrefix(at.Address, "noise://") {
		return adapter.ListenSocket(at)
	}
	if len(at.NodeSeed) != ed25519.SeedSize {
		return nil, errors.New("noise:// needs -node-seed, 32 bytes in base64")
	}
	signer, address, err := privval.ParseNoiseAddr(at.Address)
	if err != nil {
		return nil, fmt.Errorf("read `%s`: %w", at.Address, err)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	identity := cmted25519.PrivKey(ed25519.NewKeyFromSeed(at.NodeSeed))
	return privval.NewNoiseListener(listener, identity, []peer.ID{signer})
}
