package suite

import (
	"bytes"
	"fmt"
	"time"
)

// repeats checks FilePV's one exception to "never twice": the same vote or proposal again, or with only another
// timestamp, is answered with the signature and the timestamp that were stored.
func (s *session) repeats() {
	for _, kind := range []int32{Prevote, Precommit} {
		name := map[int32]string{Prevote: "prevote", Precommit: "precommit"}[kind]
		s.next()
		s.repeatsVote(name, s.vote(kind, 0))
		s.next()
		s.repeatsVote("nil "+name, s.voteFor(kind, 0, BlockID{}))
	}
	s.next()
	s.repeatsProposal(s.proposal(0))
}

func (s *session) repeatsVote(name string, vote Vote) {
	first, err := s.sign(vote)
	if err != nil {
		s.report.record(name+" to be repeated", "", err)
		return
	}
	for _, shift := range timestampShifts {
		again := vote
		again.Timestamp = vote.Timestamp.Add(shift)
		signed, err := s.sign(again)
		s.report.record(name+" repeated, timestamp "+describe(shift), "", sameAnswer(first, signed, err))
	}
	// Validator index and address are outside the sign bytes, so they cannot make a conflict.
	again := vote
	again.ValidatorAddress = bytes.Repeat([]byte{7}, 20)
	signed, err := s.node.SignVote(s.chainID, &again)
	s.report.record(name+" repeated for another validator address", "", sameAnswer(first, signed, err))
}

func (s *session) repeatsProposal(proposal Proposal) {
	first, err := s.node.SignProposal(s.chainID, &proposal)
	if err == nil {
		err = s.node.VerifyProposal(s.chainID, s.key, proposal, first)
	}
	if err != nil {
		s.report.record("proposal to be repeated", "", err)
		return
	}
	for _, shift := range timestampShifts {
		again := proposal
		again.Timestamp = proposal.Timestamp.Add(shift)
		signed, err := s.node.SignProposal(s.chainID, &again)
		if err == nil {
			err = s.node.VerifyProposal(s.chainID, s.key, again, signed)
		}
		s.report.record("proposal repeated, timestamp "+describe(shift), "", sameAnswer(first, signed, err))
	}
}

var timestampShifts = []time.Duration{0, time.Second, -time.Second, time.Nanosecond}

func describe(shift time.Duration) string {
	switch {
	case shift == 0:
		return "equal"
	case shift > 0:
		return fmt.Sprintf("%s later", shift)
	default:
		return fmt.Sprintf("%s earlier", -shift)
	}
}

func sameAnswer(first, second Signed, err error) error {
	switch {
	case err != nil:
		return err
	case !bytes.Equal(first.Signature, second.Signature):
		return fmt.Errorf("a second signature %x, the first was %x", second.Signature, first.Signature)
	case !first.Timestamp.Equal(second.Timestamp):
		return fmt.Errorf("timestamp %s, stored was %s", second.Timestamp, first.Timestamp)
	default:
		return nil
	}
}
