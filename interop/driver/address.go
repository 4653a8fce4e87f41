package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"

	"monosign.interop/peerid"
)

// addresses is one listening place, as the node and as the signer write it.
type addresses struct {
	node, signer string
	// socket is the path of a unix socket, else empty.
	socket string
}

// newAddresses picks a free place to listen; noise:// pins the peer ids of both seeds.
func newAddresses(t transport, dir string, nodeSeed, signerSeed []byte) (addresses, error) {
	if t == unix {
		socket := filepath.Join(dir, "privval.sock")
		address := "unix://" + socket
		return addresses{node: address, signer: address, socket: socket}, nil
	}
	port, err := freePort()
	if err != nil {
		return addresses{}, err
	}
	if t == tcp {
		address := fmt.Sprintf("tcp://127.0.0.1:%d", port)
		return addresses{node: address, signer: address}, nil
	}
	return addresses{
		node:   fmt.Sprintf("noise://%s@127.0.0.1:%d", peerid.FromSeed(signerSeed), port),
		signer: fmt.Sprintf("noise://%s@127.0.0.1:%d", peerid.FromSeed(nodeSeed), port),
	}, nil
}

// removeStaleSocket does what an operator has to do after a node was killed: it cannot bind to an existing file.
func (a addresses) removeStaleSocket() {
	if a.socket != "" {
		_ = os.Remove(a.socket)
	}
}

// freePort finds a loopback port below the range that outgoing connections use, so that it stays free while a
// program restarts.
func freePort() (int, error) {
	var err error
	for range 100 {
		port := 20000 + rand.IntN(12000)
		var listener net.Listener
		if listener, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return port, listener.Close()
		}
	}
	return 0, fmt.Errorf("find a free port: %w", err)
}
