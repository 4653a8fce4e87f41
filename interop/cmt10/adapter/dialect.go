package adapter

import (
	cmtproto "github.com/cometbft/cometbft/api/cometbft/types/v1"
	"github.com/cometbft/cometbft/crypto"
	"github.com/cometbft/cometbft/privval"
	"github.com/cometbft/cometbft/types"

	"monosign.interop/suite"
)

// V1 is the dialect of CometBFT v1.
var V1 = Dialect{
	SignVote: func(client *privval.SignerClient, chainID string, vote *cmtproto.Vote, skipExtension bool) error {
		return client.SignVote(chainID, vote, !skipExtension)
	},
	SignBytes: (*privval.SignerClient).SignBytes,
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
