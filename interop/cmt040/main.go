// Command cmt040 drives a signer with the privval code of CometBFT v0.40, over noise:// too.
package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"net"
	"strings"
	"time"

	cmted25519 "github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/cometbft/cometbft/privval"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/security/noise"

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
		Reference:           adapter.Reference(dial),
	})
}

// listen adds noise://<signer's peer id>@host:port to the transports of the older releases.
func listen(at suite.Listener) (net.Listener, error) {
	if !strings.HasPrefix(at.Address, "noise://") {
		return adapter.ListenSocket(at)
	}
	identity, err := identity(at.Seed)
	if err != nil {
		return nil, err
	}
	signer, address, err := privval.ParseNoiseAddr(at.Address)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	return privval.NewNoiseListener(listener, identity, []peer.ID{signer})
}

// dial adds noise://<node's peer id>@host:port. CometBFT has no dialer for it in privval.
func dial(with suite.ReferenceSigner) (privval.SocketDialer, error) {
	if !strings.HasPrefix(with.Address, "noise://") {
		return adapter.DialSocket(with)
	}
	key, err := identity(with.Seed)
	if err != nil {
		return nil, err
	}
	node, address, err := privval.ParseNoiseAddr(with.Address)
	if err != nil {
		return nil, err
	}
	libp2pKey, err := crypto.UnmarshalEd25519PrivateKey(key)
	if err != nil {
		return nil, err
	}
	transport, err := noise.New(noise.ID, libp2pKey, nil)
	if err != nil {
		return nil, err
	}
	return func() (net.Conn, error) {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		secured, err := transport.SecureOutbound(ctx, conn, node)
		if err != nil {
			_ = conn.Close()
			return nil, err
		}
		return secured, nil
	}, nil
}

func identity(seed []byte) (cmted25519.PrivKey, error) {
	if len(seed) != ed25519.SeedSize {
		return nil, errors.New("noise:// needs -seed, 32 bytes in base64")
	}
	return cmted25519.PrivKey(ed25519.NewKeyFromSeed(seed)), nil
}
