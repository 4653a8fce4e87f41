package adapter

import (
	"github.com/cometbft/cometbft/crypto"
	"github.com/cometbft/cometbft/privval"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	"github.com/cometbft/cometbft/types"
)

// V037 is the dialect of CometBFT v0.37: no extensions.
var V037 = Dialect{
	SignVote: SignVote,
	Verify: func(vote *types.Vote, chainID string, key crypto.PubKey) error {
		return vote.Verify(chainID, key)
	},
}

// SignVote is the request of v0.37 to v0.40, which cannot ask to skip the extension.
func SignVote(client *privval.SignerClient, chainID string, vote *cmtproto.Vote, _ bool) error {
	return client.SignVote(chainID, vote)
}
