package adapter

import (
	cmtproto "github.com/cometbft/cometbft/api/cometbft/types/v2"
	"github.com/cometbft/cometbft/v2/crypto"
	"github.com/cometbft/cometbft/v2/privval"
	"github.com/cometbft/cometbft/v2/types"

	"monosign.interop/suite"
)

// V2 is the dialect of CometBFT v2: a second extension, which is signed without replay protection.
var V2 = Dialect{
	SignVote: func(client *privval.SignerClient, chainID string, vote *cmtproto.Vote, skipExtension bool) error {
		return client.SignVote(chainID, vote, !skipExtension)
	},
	SignBytes: (*privval.SignerClient).SignBytes,
	SetExtensions: func(message *cmtproto.Vote, vote suite.Vote, signed suite.Signed) {
		message.Extension, message.ExtensionSignature = vote.Extension, signed.ExtensionSignature
		message.NonRpExtension, message.NonRpExtensionSignature = vote.NonRPExtension, signed.NonRPExtensionSignature
	},
	TakeExtensions: func(message *cmtproto.Vote, signed *suite.Signed) {
		signed.ExtensionSignature = message.ExtensionSignature
		signed.NonRPExtensionSignature = message.NonRpExtensionSignature
	},
	Verify: func(vote *types.Vote, chainID string, key crypto.PubKey) error {
		return vote.VerifyVoteAndExtension(chainID, key)
	},
}
