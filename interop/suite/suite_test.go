package suite

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A signer without any rules must fail every check that wants a refusal, and no other.
func TestCatchesASignerThatSignsEverything(t *testing.T) {
	signer, keyFile := newCarelessSigner(t)
	report := run(releaseOf(signer), options{
		chainID: "interop-1", keyFile: keyFile, heights: 3, reconnectLimit: time.Second, outages: []time.Duration{0},
	})
	wanted := []string{
		"prevote of another block", "prevote of nil", "prevote of a block after nil", "precommit of another part count",
		"proposal of another block", "proposal with another proof-of-lock round",
		"step regression: prevote after precommit", "round regression: proposal", "height regression by 1: prevote",
		"vote of another chain id", "public key of an empty chain id", "vote of type 0", "vote request without a vote",
		"vote at height -1", "extension on a prevote", "canonical vote in SignBytes",
		"canonical vote as non-replay-protected extension", "prevote repeated, timestamp 1s later",
	}
	failed := failures(report)
	for _, name := range wanted {
		if !slices.Contains(failed, name) {
			t.Errorf("`%s` did not fail", name)
		}
	}
	for _, name := range []string{"public key", "rising heights", "prevote repeated, timestamp equal", "connection drop"} {
		if slices.Contains(failed, name) {
			t.Errorf("`%s` failed", name)
		}
	}
}

// A wrong signature, a wrong arm and a lost connection are failures wherever they happen.
func TestCatchesASignerThatBreaks(t *testing.T) {
	for name, spoil := range map[string]func(*carelessSigner){
		"rising heights": func(s *carelessSigner) { s.spoil = true },
		"public key":     func(s *carelessSigner) { s.key = ed25519.NewKeyFromSeed(make([]byte, 32)) },
		"ping":           func(s *carelessSigner) { s.deaf = true },
	} {
		signer, keyFile := newCarelessSigner(t)
		spoil(signer)
		report := run(releaseOf(signer), options{
			chainID: "interop-1", keyFile: keyFile, heights: 3, reconnectLimit: time.Second, outages: []time.Duration{0},
		})
		if !slices.Contains(failures(report), name) {
			t.Errorf("`%s` did not fail", name)
		}
	}
}

func failures(report *Report) []string {
	var names []string
	for _, check := range report.Checks {
		if check.Result == Fail {
			names = append(names, check.Name)
		}
	}
	return names
}

func releaseOf(signer *carelessSigner) Release {
	return Release{
		Name: "careless", Extensions: true, NonRPExtensions: true, SkipExtensions: true, SignBytes: true,
		Listen: func(Listener) (Node, error) { return signer, nil },
	}
}

// carelessSigner is node and signer in one, without a connection between them, and signs whatever it is asked to.
type carelessSigner struct {
	key         ed25519.PrivateKey
	spoil, deaf bool
}

func newCarelessSigner(t *testing.T) (*carelessSigner, string) {
	t.Helper()
	key := ed25519.NewKeyFromSeed([]byte(strings.Repeat("k", 32)))
	file, err := json.Marshal(map[string]any{"pub_key": map[string]any{"value": []byte(key.Public().(ed25519.PublicKey))}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key.json")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	return &carelessSigner{key: key}, path
}

func (s *carelessSigner) sign(what string) []byte {
	if s.spoil {
		what += "spoilt"
	}
	return ed25519.Sign(s.key, []byte(what))
}

func (s *carelessSigner) verify(what string, signature []byte) error {
	if !ed25519.Verify(s.key.Public().(ed25519.PublicKey), []byte(what), signature) {
		return errors.New("invalid signature")
	}
	return nil
}

func voteText(chainID string, v Vote, at time.Time) string {
	return fmt.Sprint(chainID, v.Type, v.Height, v.Round, v.BlockID, at)
}

func proposalText(chainID string, p Proposal, at time.Time) string {
	return fmt.Sprint(chainID, p.Height, p.Round, p.POLRound, p.BlockID, at)
}

func (s *carelessSigner) WaitForConnection(time.Duration) error { return nil }

func (s *carelessSigner) PublicKey(string) (PublicKey, error) {
	return PublicKey{Type: "ed25519", Bytes: s.key.Public().(ed25519.PublicKey)}, nil
}

func (s *carelessSigner) Ping() error {
	if s.deaf {
		return errors.New("no answer")
	}
	return nil
}

func (s *carelessSigner) SignVote(chainID string, v *Vote) (Signed, error) {
	if v == nil {
		return Signed{}, nil
	}
	return Signed{Signature: s.sign(voteText(chainID, *v, v.Timestamp)), Timestamp: v.Timestamp}, nil
}

func (s *carelessSigner) SignProposal(chainID string, p *Proposal) (Signed, error) {
	if p == nil {
		return Signed{}, nil
	}
	return Signed{Signature: s.sign(proposalText(chainID, *p, p.Timestamp)), Timestamp: p.Timestamp}, nil
}

func (s *carelessSigner) SignBytes(data []byte) ([]byte, error) { return s.sign(string(data)), nil }

func (s *carelessSigner) VoteSignBytes(chainID string, v Vote) []byte {
	return []byte(voteText(chainID, v, v.Timestamp))
}

func (s *carelessSigner) VerifyVote(chainID string, _ PublicKey, v Vote, signed Signed) error {
	return s.verify(voteText(chainID, v, signed.Timestamp), signed.Signature)
}

func (s *carelessSigner) VerifyProposal(chainID string, _ PublicKey, p Proposal, signed Signed) error {
	return s.verify(proposalText(chainID, p, signed.Timestamp), signed.Signature)
}

func (s *carelessSigner) Drop() {}

func (s *carelessSigner) Stop() error { return nil }
