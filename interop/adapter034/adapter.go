// Code generated from adapter037/adapter.go by the generate command. DO NOT EDIT.

// Package adapter lets the version-neutral suite drive the privval code of CometBFT. This file is written for the
// import paths of v0.37 to v0.40; the generate command makes the copies for the other releases' paths.
package adapter

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"strings"
	"time"

	"github.com/tendermint/tendermint/crypto"
	"github.com/tendermint/tendermint/crypto/ed25519"
	"github.com/tendermint/tendermint/libs/log"
	"github.com/tendermint/tendermint/privval"
	privvalproto "github.com/tendermint/tendermint/proto/tendermint/privval"
	cmtproto "github.com/tendermint/tendermint/proto/tendermint/types"
	"github.com/tendermint/tendermint/types"

	"monosign.interop/suite"
)

// Dialect is what differs between releases beyond import paths. Fields may be nil where a release lacks the thing.
type Dialect struct {
	// SignVote calls the client; its signature changed in v1.
	SignVote func(client *privval.SignerClient, chainID string, vote *cmtproto.Vote, skipExtension bool) error
	// SignBytes asks for a signature over raw bytes (v1, v2).
	SignBytes func(client *privval.SignerClient, data []byte) ([]byte, error)
	// SetExtensions fills in extensions and their signatures (v0.38 and later).
	SetExtensions func(message *cmtproto.Vote, vote suite.Vote, signed suite.Signed)
	// TakeExtensions reads the extensions' signatures (v0.38 and later).
	TakeExtensions func(message *cmtproto.Vote, signed *suite.Signed)
	// Verify checks all signatures of a vote.
	Verify func(vote *types.Vote, chainID string, key crypto.PubKey) error
}

// Listen returns the suite's way to open a node; listen makes the listener for an address.
func Listen(dialect Dialect, listen ListenFunc) func(suite.Listener) (suite.Node, error) {
	return func(at suite.Listener) (suite.Node, error) {
		listener, err := listen(at)
		if err != nil {
			return nil, err
		}
		endpoint := privval.NewSignerListenerEndpoint(logger(), listener)
		client, err := privval.NewSignerClient(endpoint, at.ChainID)
		if err != nil {
			return nil, err
		}
		return &node{endpoint: endpoint, client: client, dialect: dialect}, nil
	}
}

// ListenFunc makes the listener for an address.
type ListenFunc func(suite.Listener) (net.Listener, error)

// ListenSocket listens on tcp:// (SecretConnection) and unix:// (plain), as privval.NewSignerListener does.
func ListenSocket(at suite.Listener) (net.Listener, error) {
	network, address, _ := strings.Cut(at.Address, "://")
	listener, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	switch network {
	case "tcp":
		return privval.NewTCPListener(listener, ed25519.GenPrivKey()), nil
	case "unix":
		return privval.NewUnixListener(listener), nil
	default:
		return nil, fmt.Errorf("unknown transport `%s`", network)
	}
}

type node struct {
	endpoint *privval.SignerListenerEndpoint
	client   *privval.SignerClient
	dialect  Dialect
}

func (n *node) WaitForConnection(limit time.Duration) error {
	return n.client.WaitForConnection(limit)
}

func (n *node) PublicKey(chainID string) (suite.PublicKey, error) {
	client, err := privval.NewSignerClient(n.endpoint, chainID)
	if err != nil {
		return suite.PublicKey{}, err
	}
	key, err := client.GetPubKey()
	if err != nil {
		return suite.PublicKey{}, refusal(err)
	}
	return suite.PublicKey{Type: key.Type(), Bytes: key.Bytes(), Address: key.Address(), Native: key}, nil
}

func (n *node) Ping() error {
	answer, err := n.endpoint.SendRequest(privvalproto.Message{
		Sum: &privvalproto.Message_PingRequest{PingRequest: &privvalproto.PingRequest{}},
	})
	if err != nil {
		return err
	}
	if answer.GetPingResponse() == nil {
		return errors.New("ping was not answered by a ping response")
	}
	return nil
}

func (n *node) SignVote(chainID string, vote *suite.Vote) (suite.Signed, error) {
	if vote == nil {
		return suite.Signed{}, refusal(n.dialect.SignVote(n.client, chainID, nil, false))
	}
	message := n.vote(*vote, suite.Signed{Timestamp: vote.Timestamp})
	if err := n.dialect.SignVote(n.client, chainID, message, vote.SkipExtension); err != nil {
		return suite.Signed{}, refusal(err)
	}
	signed := suite.Signed{Signature: message.Signature, Timestamp: message.Timestamp}
	if n.dialect.TakeExtensions != nil {
		n.dialect.TakeExtensions(message, &signed)
	}
	return signed, nil
}

func (n *node) SignProposal(chainID string, proposal *suite.Proposal) (suite.Signed, error) {
	if proposal == nil {
		return suite.Signed{}, refusal(n.client.SignProposal(chainID, nil))
	}
	message := proposalProto(*proposal)
	if err := n.client.SignProposal(chainID, message); err != nil {
		return suite.Signed{}, refusal(err)
	}
	return suite.Signed{Signature: message.Signature, Timestamp: message.Timestamp}, nil
}

func (n *node) SignBytes(data []byte) ([]byte, error) {
	if n.dialect.SignBytes == nil {
		return nil, errors.New("this release has no request to sign raw bytes")
	}
	signature, err := n.dialect.SignBytes(n.client, data)
	return signature, refusal(err)
}

func (n *node) VoteSignBytes(chainID string, vote suite.Vote) []byte {
	return types.VoteSignBytes(chainID, n.vote(vote, suite.Signed{Timestamp: vote.Timestamp}))
}

func (n *node) VerifyVote(chainID string, key suite.PublicKey, asked suite.Vote, signed suite.Signed) error {
	vote, err := types.VoteFromProto(n.vote(asked, signed))
	if err != nil {
		return err
	}
	if err := vote.ValidateBasic(); err != nil {
		return err
	}
	return n.dialect.Verify(vote, chainID, key.Native.(crypto.PubKey))
}

func (n *node) VerifyProposal(chainID string, key suite.PublicKey, asked suite.Proposal, signed suite.Signed) error {
	message := proposalProto(asked)
	message.Signature, message.Timestamp = signed.Signature, signed.Timestamp
	proposal, err := types.ProposalFromProto(message)
	if err != nil {
		return err
	}
	if err := proposal.ValidateBasic(); err != nil {
		return err
	}
	signBytes := types.ProposalSignBytes(chainID, proposal.ToProto())
	if !key.Native.(crypto.PubKey).VerifySignature(signBytes, proposal.Signature) {
		return errors.New("invalid proposal signature")
	}
	return nil
}

func (n *node) Drop() { n.endpoint.DropConnection() }

func (n *node) Stop() error { return n.endpoint.Stop() }

// vote builds the message for a vote as it looks with a signer's answer filled in.
func (n *node) vote(vote suite.Vote, signed suite.Signed) *cmtproto.Vote {
	message := &cmtproto.Vote{
		Type:             cmtproto.SignedMsgType(vote.Type),
		Height:           vote.Height,
		Round:            vote.Round,
		BlockID:          blockID(vote.BlockID),
		Timestamp:        signed.Timestamp,
		ValidatorAddress: vote.ValidatorAddress,
		Signature:        signed.Signature,
	}
	if n.dialect.SetExtensions != nil {
		n.dialect.SetExtensions(message, vote, signed)
	}
	return message
}

func proposalProto(proposal suite.Proposal) *cmtproto.Proposal {
	return &cmtproto.Proposal{
		Type:      cmtproto.SignedMsgType(proposal.Type),
		Height:    proposal.Height,
		Round:     proposal.Round,
		PolRound:  proposal.POLRound,
		BlockID:   blockID(proposal.BlockID),
		Timestamp: proposal.Timestamp,
	}
}

func blockID(id suite.BlockID) cmtproto.BlockID {
	return cmtproto.BlockID{Hash: id.Hash, PartSetHeader: cmtproto.PartSetHeader{Total: id.Total, Hash: id.PartsHash}}
}

// refusal recognises an answer in the right arm that holds an error.
func refusal(err error) error {
	var remote *privval.RemoteSignerError
	if errors.As(err, &remote) {
		return &suite.Refusal{Code: remote.Code, Description: remote.Description}
	}
	return err
}

// Reference returns the release's own signer, FilePV behind a SignerServer; dial makes the dialer for an address.
func Reference(dial DialFunc) func(suite.ReferenceSigner) error {
	return func(with suite.ReferenceSigner) error {
		dialer, err := dial(with)
		if err != nil {
			return err
		}
		endpoint := privval.NewSignerDialerEndpoint(logger(), dialer)
		if !with.Stock {
			endpoint = privval.NewSignerDialerEndpoint(logger(), redialing(dialer),
				privval.SignerDialerEndpointConnRetries(math.MaxInt32),
				privval.SignerDialerEndpointRetryWaitInterval(20*time.Millisecond))
		}
		key := privval.LoadFilePV(with.KeyFile, with.StateFile)
		server := privval.NewSignerServer(endpoint, with.ChainID, key)
		if err := server.Start(); err != nil {
			return err
		}
		<-server.Quit()
		return nil
	}
}

// DialFunc makes the dialer for an address.
type DialFunc func(suite.ReferenceSigner) (privval.SocketDialer, error)

// DialSocket dials tcp:// (SecretConnection) and unix:// (plain).
func DialSocket(with suite.ReferenceSigner) (privval.SocketDialer, error) {
	network, address, _ := strings.Cut(with.Address, "://")
	switch network {
	case "tcp":
		return privval.DialTCPFn(address, 5*time.Second, ed25519.GenPrivKey()), nil
	case "unix":
		return privval.DialUnixFn(address), nil
	default:
		return nil, fmt.Errorf("unknown transport `%s`", network)
	}
}

// logger writes where the driver keeps the program's log.
func logger() log.Logger { return log.NewTMLogger(log.NewSyncWriter(os.Stderr)) }

// redialing turns a clean end of stream into a timeout. The stock server drops the connection only on timeouts
// and would spin on a dead one for ever (SignerServer.servicePendingRequest, every release).
func redialing(dial privval.SocketDialer) privval.SocketDialer {
	return func() (net.Conn, error) {
		conn, err := dial()
		if err != nil {
			return nil, err
		}
		return eofIsTimeout{conn}, nil
	}
}

type eofIsTimeout struct{ net.Conn }

func (c eofIsTimeout) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if errors.Is(err, io.EOF) {
		return n, os.ErrDeadlineExceeded
	}
	return n, err
}
