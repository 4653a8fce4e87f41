package suite

import "math"

// refusesConflicts asks for a second, different signature at a height, round and step already signed.
func (s *session) refusesConflicts() {
	for _, kind := range []int32{Prevote, Precommit} {
		name := map[int32]string{Prevote: "prevote", Precommit: "precommit"}[kind]
		s.next()
		vote := s.vote(kind, 0)
		if _, err := s.sign(vote); err != nil {
			s.report.record(name+" to be contradicted", "", err)
			continue
		}
		for _, conflict := range s.conflictingBlocks() {
			other := vote
			other.BlockID = conflict.block
			s.refusesVote(name+" of "+conflict.name, other)
			other.Timestamp = s.tick()
			s.refusesVote(name+" of "+conflict.name+", later", other)
		}
		s.next()
		if _, err := s.sign(s.voteFor(kind, 0, BlockID{})); err != nil {
			s.report.record("nil "+name+" to be contradicted", "", err)
			continue
		}
		s.refusesVote(name+" of a block after nil", s.vote(kind, 0))
	}
	s.refusesConflictingProposals()
}

func (s *session) refusesConflictingProposals() {
	s.next()
	proposal := s.proposal(2)
	if err := s.propose(proposal); err != nil {
		s.report.record("proposal to be contradicted", "", err)
		return
	}
	for _, conflict := range s.conflictingBlocks() {
		other := proposal
		other.BlockID = conflict.block
		s.refusesProposal("proposal of "+conflict.name, other)
	}
	other := proposal
	other.POLRound = 0
	s.refusesProposal("proposal with another proof-of-lock round", other)
	other.POLRound = -1
	s.refusesProposal("proposal without proof-of-lock round", other)
	// A repeat must still work after all those refusals.
	s.report.record("proposal repeated after refusals", "", s.propose(proposal))
}

type conflict struct {
	name  string
	block BlockID
}

// conflictingBlocks returns ids that differ from the height's block in every part there is.
func (s *session) conflictingBlocks() []conflict {
	block, other := blockAt(s.height, "block"), blockAt(s.height, "other")
	hash, total, parts := block, block, block
	hash.Hash, total.Total, parts.PartsHash = other.Hash, 2, other.PartsHash
	return []conflict{
		{"another block", other},
		{"nil", BlockID{}},
		{"another block hash", hash},
		{"another part count", total},
		{"another part set hash", parts},
	}
}

// refusesRegressions asks for a step, round or height below the last one signed.
func (s *session) refusesRegressions() {
	s.next()
	s.next()
	if _, err := s.sign(s.vote(Precommit, 3)); err != nil {
		s.report.record("precommit at round 3", "", err)
		return
	}
	s.refusesVote("step regression: prevote after precommit", s.vote(Prevote, 3))
	s.refusesProposal("step regression: proposal after precommit", s.proposal(3))
	s.refusesVote("round regression: prevote", s.vote(Prevote, 2))
	s.refusesVote("round regression: precommit", s.vote(Precommit, 2))
	s.refusesProposal("round regression: proposal", s.proposal(0))
	top := s.height
	for _, below := range []int64{1, 2, top} {
		s.height = top - below
		name := map[int64]string{1: "height regression by 1", 2: "height regression by 2", top: "height 0"}[below]
		s.refusesVote(name+": prevote", s.vote(Prevote, 0))
		s.refusesVote(name+": precommit in a later round", s.vote(Precommit, 9))
		s.refusesProposal(name+": proposal", s.proposal(0))
	}
	s.height = top
	_, err := s.sign(s.vote(Prevote, 4))
	s.report.record("next round after refusals", "", err)
	s.height += 1000
	_, err = s.sign(s.vote(Precommit, 0))
	s.report.record("1000 heights further, no proposal, no prevote", "", err)
}

// refusesOtherChains asks with a chain id the signer does not serve.
func (s *session) refusesOtherChains() {
	s.next()
	for _, chain := range []struct{ name, id string }{
		{"another chain id", "other-chain"},
		{"a longer chain id", s.chainID + "0"},
		{"an empty chain id", ""},
	} {
		_, err := s.node.PublicKey(chain.id)
		s.refuses("public key of "+chain.name, err)
		// v2 answers sign requests for another chain with a public key response.
		if s.NonRPExtensions && s.referenceFails("vote and proposal of "+chain.name, "answers in the wrong arm") {
			continue
		}
		vote, proposal := s.vote(Prevote, 0), s.proposal(0)
		_, err = s.node.SignVote(chain.id, &vote)
		s.refuses("vote of "+chain.name, err)
		_, err = s.node.SignProposal(chain.id, &proposal)
		s.refuses("proposal of "+chain.name, err)
	}
	s.report.record("own chain afterwards", "", s.propose(s.proposal(0)))
}

// refusesMalformed sends what no honest node would. CometBFT's own signer panics on the first group: FilePV
// (privval/file.go voteToStep) and types/canonical.go take those fields for valid.
func (s *session) refusesMalformed() {
	s.next()
	vote := s.vote(Prevote, 0)
	if !s.referenceFails("malformed requests", "panics on wrong types, hash lengths and absent messages") {
		for _, kind := range []int32{0, 3, ProposalType, 99, -1, math.MaxInt32} {
			malformed := vote
			malformed.Type = kind
			s.refusesVote("vote of type "+itoa(int64(kind)), malformed)
		}
		for _, length := range []int{3, 31, 33, 64} {
			malformed := vote
			malformed.BlockID.Hash = filler(length, 1)
			s.refusesVote("vote with a block hash of "+itoa(int64(length))+" bytes", malformed)
			proposal := s.proposal(0)
			proposal.BlockID.Hash = filler(length, 1)
			s.refusesProposal("proposal with a block hash of "+itoa(int64(length))+" bytes", proposal)
		}
		malformed := vote
		malformed.BlockID.PartsHash = filler(3, 1)
		s.refusesVote("vote with a part set hash of 3 bytes", malformed)
		_, err := s.node.SignVote(s.chainID, nil)
		s.refuses("vote request without a vote", err)
		_, err = s.node.SignProposal(s.chainID, nil)
		s.refuses("proposal request without a proposal", err)
	}
	s.refusesNegatives(vote)
	_, err := s.sign(vote)
	s.report.record("well-formed vote afterwards", "", err)
}

func (s *session) refusesNegatives(vote Vote) {
	for _, height := range []int64{-1, math.MinInt64} {
		negative, proposal := vote, s.proposal(0)
		negative.Height, proposal.Height = height, height
		s.refusesVote("vote at height "+itoa(height), negative)
		s.refusesProposal("proposal at height "+itoa(height), proposal)
	}
}
