package suite

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// connectLimit is how long a signer may take to dial in for the first time.
const connectLimit = 20 * time.Second

// session is one run against one signer: the connection, and the height up to which it has been asked to sign.
type session struct {
	Release
	options
	node   Node
	key    PublicKey
	height int64
	clock  time.Time
	report *Report
}

func run(release Release, options options) *Report {
	s := &session{
		Release: release,
		options: options,
		report:  &Report{Release: release.Name, Address: options.address},
		// Milliseconds are what CometBFT gives its votes.
		clock: time.Now().UTC().Truncate(time.Millisecond),
	}
	defer s.report.finish()
	if err := s.listen(); err != nil {
		s.report.record("listen", "", err)
		return s.report
	}
	defer func() { _ = s.node.Stop() }()
	if !s.connects() {
		return s.report
	}
	s.signsRisingHeights()
	s.repeats()
	s.refusesConflicts()
	s.refusesRegressions()
	s.refusesOtherChains()
	s.refusesMalformed()
	s.signsExtensions()
	s.keepsRawBytesApart()
	s.reconnects()
	return s.report
}

func (s *session) listen() error {
	node, err := s.Listen(Listener{Address: s.address, ChainID: s.chainID, Seed: s.seed})
	s.node = node
	return err
}

// connects waits for the signer and compares its public key; nothing else can be checked without it.
func (s *session) connects() bool {
	if err := s.waitForSigner(connectLimit); err != nil {
		s.report.record("signer dials in", "", err)
		return false
	}
	key, err := s.node.PublicKey(s.chainID)
	if err == nil {
		var want []byte
		want, err = expectedKey(s.keyFile)
		if err == nil && !bytes.Equal(key.Bytes, want) {
			err = fmt.Errorf("public key is %x, the key file has %x", key.Bytes, want)
		}
	}
	s.key = key
	s.report.record("public key", fmt.Sprintf("%s %x", key.Type, key.Address), err)
	s.report.record("ping", "", s.node.Ping())
	return err == nil
}

// waitForSigner waits in steps: each release gives up on a connection after 3 s by itself.
func (s *session) waitForSigner(limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		err := s.node.WaitForConnection(time.Until(deadline))
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// signsRisingHeights asks for proposal, prevote and precommit at one height after the other and verifies each.
func (s *session) signsRisingHeights() {
	first := s.height + 1
	for range s.heights {
		if err := s.signHeight(); err != nil {
			s.report.record("rising heights", "", fmt.Errorf("height %d: %w", s.height, err))
			return
		}
	}
	detail := fmt.Sprintf("%d to %d, %d signatures verified", first, s.height, s.report.Signatures)
	s.report.record("rising heights", detail, nil)
}

// signHeight signs one height; every seventh has two rounds, the first of which ends in nil.
func (s *session) signHeight() error {
	s.height++
	round := int32(0)
	if s.height%7 == 0 {
		for _, kind := range []int32{Prevote, Precommit} {
			if _, err := s.sign(s.voteFor(kind, round, BlockID{})); err != nil {
				return fmt.Errorf("nil vote of type %d: %w", kind, err)
			}
		}
		round = 1
	}
	proposal := s.proposal(round)
	if err := s.propose(proposal); err != nil {
		return fmt.Errorf("proposal: %w", err)
	}
	if _, err := s.sign(s.voteFor(Prevote, round, proposal.BlockID)); err != nil {
		return fmt.Errorf("prevote: %w", err)
	}
	precommit := s.voteFor(Precommit, round, proposal.BlockID)
	if s.Extensions {
		sizes := s.extensionSizes()
		precommit.Extension = filler(sizes[int(s.height)%len(sizes)], byte(s.height))
	}
	if _, err := s.sign(precommit); err != nil {
		return fmt.Errorf("precommit with %d bytes of extension: %w", len(precommit.Extension), err)
	}
	return nil
}

// sign asks for a vote's signature and verifies it the way the node's vote set would: over the vote it asked for,
// with only the signatures and the timestamp taken from the answer.
func (s *session) sign(vote Vote) (Signed, error) {
	start := time.Now()
	signed, err := s.node.SignVote(s.chainID, &vote)
	if err != nil {
		return signed, err
	}
	if len(vote.Extension) == 0 {
		s.report.latencies = append(s.report.latencies, time.Since(start))
	}
	if err := s.node.VerifyVote(s.chainID, s.key, vote, signed); err != nil {
		return signed, fmt.Errorf("verification: %w", err)
	}
	s.report.Signatures++
	return signed, nil
}

// propose asks for a proposal's signature and verifies it over the timestamp asked for: nodes ignore the answer's.
func (s *session) propose(proposal Proposal) error {
	start := time.Now()
	signed, err := s.node.SignProposal(s.chainID, &proposal)
	if err != nil {
		return err
	}
	s.report.latencies = append(s.report.latencies, time.Since(start))
	signed.Timestamp = proposal.Timestamp
	if err := s.node.VerifyProposal(s.chainID, s.key, proposal, signed); err != nil {
		return fmt.Errorf("verification: %w", err)
	}
	s.report.Signatures++
	return nil
}

// refuses wants an error in the right arm, and a connection that still works.
func (s *session) refuses(name string, err error) {
	var refusal *Refusal
	switch {
	case err == nil:
		s.report.add(name, Fail, "answered with a signature")
	case !errors.As(err, &refusal):
		s.report.add(name, Fail, fmt.Sprintf("no error in the arm of the request: %v", err))
	default:
		if err := s.node.Ping(); err != nil {
			s.report.add(name, Fail, fmt.Sprintf("refused (%s), but the connection is gone: %v", refusal.Description, err))
			return
		}
		s.report.add(name, Pass, refusal.Description)
	}
}

// referenceFails skips a check that CometBFT's own signer is known not to survive or to answer wrongly.
func (s *session) referenceFails(name, how string) bool {
	if s.againstReference {
		s.report.add(name, Skip, "CometBFT's signer "+how)
	}
	return s.againstReference
}

func (s *session) refusesVote(name string, vote Vote) {
	_, err := s.node.SignVote(s.chainID, &vote)
	s.refuses(name, err)
}

func (s *session) refusesProposal(name string, proposal Proposal) {
	_, err := s.node.SignProposal(s.chainID, &proposal)
	s.refuses(name, err)
}

// proposal returns a well-formed proposal of the current height.
func (s *session) proposal(round int32) Proposal {
	return Proposal{
		Type: ProposalType, Height: s.height, Round: round, POLRound: round - 1,
		BlockID: blockAt(s.height, "block"), Timestamp: s.tick(),
	}
}

// vote returns a well-formed vote of the current height for that height's block.
func (s *session) vote(kind, round int32) Vote {
	return s.voteFor(kind, round, blockAt(s.height, "block"))
}

func (s *session) voteFor(kind, round int32, block BlockID) Vote {
	return Vote{
		Type: kind, Height: s.height, Round: round, BlockID: block,
		Timestamp: s.tick(), ValidatorAddress: s.key.Address,
	}
}

// tick returns a time later than all before.
func (s *session) tick() time.Time {
	s.clock = s.clock.Add(time.Millisecond)
	return s.clock
}

// next moves to a height at which nothing has been signed.
func (s *session) next() { s.height++ }

// blockAt makes up the id of a block.
func blockAt(height int64, label string) BlockID {
	return BlockID{Hash: digest("hash", height, label), Total: 1, PartsHash: digest("parts", height, label)}
}

func digest(kind string, height int64, label string) []byte {
	input := binary.BigEndian.AppendUint64([]byte(kind+label), uint64(height))
	sum := sha256.Sum256(input)
	return sum[:]
}

// filler returns size bytes that differ with seed.
func filler(size int, seed byte) []byte {
	data := make([]byte, size)
	for i := range data {
		data[i] = seed ^ byte(i) ^ byte(i>>8)
	}
	return data
}
