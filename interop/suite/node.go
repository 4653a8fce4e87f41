// Package suite asks a remote signer for signatures the way a CometBFT validator does, and checks every answer.
//
// It knows no CometBFT version: each version's program hands in a [Release], a thin adapter around that
// version's own privval.SignerListenerEndpoint, privval.SignerClient and verification code, and calls [Main].
package suite

import (
	"fmt"
	"time"
)

// Release is one CometBFT version: what it can do, and how to become its node or its own signer.
type Release struct {
	// Name is the key of the version, for example "cmt038".
	Name string
	// Extensions says that votes carry extensions (v0.38 and later).
	Extensions bool
	// NonRPExtensions says that votes carry non-replay-protected extensions too (v2).
	NonRPExtensions bool
	// SkipExtensions says that a vote request can ask for no extension signature (v1, v2).
	SkipExtensions bool
	// SignBytes says that the protocol has a request to sign raw bytes (v1, v2).
	SignBytes bool
	// ReferenceMaxMessage is the largest message in bytes that this version's own signer reads.
	ReferenceMaxMessage int
	// Listen opens the validator's side of the connection.
	Listen func(Listener) (Node, error)
	// Reference runs this version's own signer (FilePV) until the process ends.
	Reference func(ReferenceSigner) error
}

// Listener is where a validator waits for its signer.
type Listener struct {
	// Address is tcp://host:port, unix:///path or (v0.40) noise://<signer's peer id>@host:port.
	Address string
	// ChainID is sent with public key requests.
	ChainID string
	// Seed is the 32-byte Ed25519 seed of the node's identity; only noise:// uses it.
	Seed []byte
}

// ReferenceSigner is the set-up of CometBFT's own remote signer.
type ReferenceSigner struct {
	// Address is tcp://host:port, unix:///path or (v0.40) noise://<node's peer id>@host:port.
	Address string
	// ChainID is the only chain it signs for.
	ChainID string
	// Seed is the 32-byte Ed25519 seed of the signer's identity; only noise:// uses it.
	Seed []byte
	// KeyFile and StateFile are FilePV's files.
	KeyFile, StateFile string
	// Stock leaves the faults in that it has when its connection is lost.
	Stock bool
}

// Node is a validator's side of one privval connection.
//
// Sign methods return a *[Refusal] when the signer answered with an error in the arm that matches the request;
// any other error means no answer, an undecodable one or one in the wrong arm.
type Node interface {
	// WaitForConnection blocks until a signer is connected, or fails after limit.
	WaitForConnection(limit time.Duration) error
	// PublicKey asks for the key of a chain.
	PublicKey(chainID string) (PublicKey, error)
	// Ping sends a ping and wants a ping response.
	Ping() error
	// SignVote asks for a vote's signature; a nil vote sends a request without one.
	SignVote(chainID string, vote *Vote) (Signed, error)
	// SignProposal asks for a proposal's signature; a nil proposal sends a request without one.
	SignProposal(chainID string, proposal *Proposal) (Signed, error)
	// SignBytes asks for a signature over raw bytes. Only called when the release has SignBytes.
	SignBytes(data []byte) ([]byte, error)
	// VoteSignBytes returns the canonical bytes of a vote.
	VoteSignBytes(chainID string, vote Vote) []byte
	// VerifyVote checks the signatures with the release's own code, as its vote set would.
	VerifyVote(chainID string, key PublicKey, vote Vote, signed Signed) error
	// VerifyProposal checks the signature with the release's own code.
	VerifyProposal(chainID string, key PublicKey, proposal Proposal, signed Signed) error
	// Drop closes the connection and keeps listening.
	Drop()
	// Stop closes the connection and the listener.
	Stop() error
}

// PublicKey is a consensus key as the node received it.
type PublicKey struct {
	// Type is CometBFT's name of the key type, for example "ed25519".
	Type string
	// Bytes are the raw key bytes.
	Bytes []byte
	// Address is the validator address of the key, 20 bytes.
	Address []byte
	// Native is the release's own crypto.PubKey.
	Native any
}

// BlockID names a block; the zero value is a vote for nil.
type BlockID struct {
	Hash      []byte
	Total     uint32
	PartsHash []byte
}

// IsNil reports whether no part of the block id is set.
func (b BlockID) IsNil() bool { return len(b.Hash) == 0 && b.Total == 0 && len(b.PartsHash) == 0 }

// Types of signed messages, numbered as in CometBFT's SignedMsgType.
const (
	Prevote      int32 = 1
	Precommit    int32 = 2
	ProposalType int32 = 32
)

// Vote is a vote to be signed.
type Vote struct {
	Type             int32
	Height           int64
	Round            int32
	BlockID          BlockID
	Timestamp        time.Time
	ValidatorAddress []byte
	// Extension and NonRPExtension must be empty for releases without them.
	Extension, NonRPExtension []byte
	// SkipExtension asks for no extension signature.
	SkipExtension bool
}

// Proposal is a proposal to be signed.
type Proposal struct {
	Type      int32
	Height    int64
	Round     int32
	POLRound  int32
	BlockID   BlockID
	Timestamp time.Time
}

// Signed is what a node takes from a signer's answer.
type Signed struct {
	Signature               []byte
	Timestamp               time.Time
	ExtensionSignature      []byte
	NonRPExtensionSignature []byte
}

// Refusal is a RemoteSignerError in the arm that matches the request: the signer refused, and said so.
type Refusal struct {
	Code        int
	Description string
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("signer refused (code %d): %s", r.Code, r.Description)
}
