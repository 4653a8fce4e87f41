// Package adapter038 adds vote extensions, which CometBFT v0.38 brought, to the adapter of v0.37.
package adapter038

import (
	"github.com/cometbft/cometbft/crypto"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	"github.com/cometbft/cometbft/types"

	adapter "monosign.interop/adapter037"
	"monosign.interop/suite"
)

// V038 is the dialect of CometBFT v0.38 to v0.40.
var V038 = adapter.Dialect{
	SignVote: adapter.SignVote,
	SetExtensions: func(message *cmtproto.Vote, vote suite.Vote, signed suite.Signed) {
		message.Extension, message.ExtensionSignature = vote.Extension, signed.ExtensionSignature
	},
	TakeExtensions: func(message *cmtproto.Vote, signed *suite.Signed) {
		signed.ExtensionSignature = message.ExtensionSignature
	},
	Verify: func(vote *types.Vote, chainID string, key crypto.PubKey) error {
		return vote.VerifyVoteAndExtension(chainID, key)
	},
}
