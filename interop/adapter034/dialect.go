package adapter

import (
	"github.com/tendermint/tendermint/crypto"
	"github.com/tendermint/tendermint/privval"
	tmproto "github.com/tendermint/tendermint/proto/tendermint/types"
	"github.com/tendermint/tendermint/types"
)

// V034 is the dialect of Tendermint and CometBFT v0.34: no extensions.
var V034 = Dialect{
	SignVote: func(client *privval.SignerClient, chainID string, vote *tmproto.Vote, _ bool) error {
		return client.SignVote(chainID, vote)
	},
	Verify: func(vote *types.Vote, chainID string, key crypto.PubKey) error {
		return vote.Verify(chainID, key)
	},
}
