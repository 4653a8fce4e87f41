package peerid

import (
	"encoding/hex"
	"testing"
)

// The pair was printed by CometBFT v0.40.0: `cometbft show-node-id --libp2p`, and the seed in its node_key.json.
func TestMatchesCometBFT(t *testing.T) {
	seed, err := hex.DecodeString("b96664220402d4431284562c09390882fa8f6b78df231758a36c1f7706a6bea0")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := FromSeed(seed), "12D3KooWHFDe7BLKXavQBPwW9tMBB2EL5MihFQv78JigYwgcxKNP"; got != want {
		t.Errorf("peer id is %s, want %s", got, want)
	}
}
