package suite

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// largeExtension is the largest extension CometBFT allows (types.MaxVoteExtensionSize).
const largeExtension = 1 << 20

// referenceNoiseLimit is where CometBFT's own reader loses its place over noise://. When a message spans several
// Noise messages, libp2p's Read (go-libp2p v0.47.0 p2p/security/noise/rw.go) then returns 0 bytes without an error,
// once, and CometBFT's byte reader (v0.40.0 libs/protoio/io.go) takes that for a zero byte: an empty message.
const referenceNoiseLimit = 65_519

// extensionSizes are the sizes to sign, in bytes. Nodes write requests without a limit, so all of them reach the
// signer; CometBFT's own signer up to v0.39, v1 and v2 reads messages of 10 KiB at most.
func (s *session) extensionSizes() []int {
	sizes := []int{0, 1 << 10, 9 << 10, 100 << 10, largeExtension}
	if !s.againstReference {
		return sizes
	}
	limit := s.ReferenceMaxMessage
	if strings.HasPrefix(s.address, "noise://") {
		limit = min(limit, referenceNoiseLimit)
	}
	for len(sizes) > 0 && sizes[len(sizes)-1]+1024 > limit {
		sizes = sizes[:len(sizes)-1]
	}
	return sizes
}

// signsExtensions checks the rules for vote extensions: signed with every non-nil precommit, refused elsewhere.
func (s *session) signsExtensions() {
	if !s.Extensions {
		return
	}
	for _, size := range s.extensionSizes() {
		s.next()
		vote := s.vote(Precommit, 0)
		vote.Extension = filler(size, 3)
		_, err := s.sign(vote)
		s.report.record(fmt.Sprintf("precommit with %d bytes of extension", size), "", err)
	}
	s.resignsExtension()
	s.next()
	vote := s.vote(Prevote, 0)
	vote.Extension = []byte("extension")
	s.refusesVote("extension on a prevote", vote)
	vote = s.voteFor(Precommit, 0, BlockID{})
	vote.Extension = []byte("extension")
	s.refusesVote("extension on a nil precommit", vote)
	s.signsNoExtensionElsewhere()
	if s.SkipExtensions {
		s.skipsExtension()
	}
	if s.NonRPExtensions {
		s.signsNonRPExtensions()
	}
}

// resignsExtension asks for the same precommit with another extension: the vote's signature is the stored one, the
// extension's a new one, since an application need not extend deterministically (CometBFT privval/file.go signVote).
func (s *session) resignsExtension() {
	s.next()
	vote := s.vote(Precommit, 0)
	vote.Extension = []byte("first")
	first, err := s.sign(vote)
	if err == nil {
		again := vote
		again.Extension = []byte("second")
		var second Signed
		second, err = s.sign(again)
		err = sameAnswer(first, second, err)
	}
	s.report.record("precommit repeated with another extension", "", err)
}

// signsNoExtensionElsewhere wants no extension signature on prevotes and nil precommits: a v0.38+ node panics on one.
func (s *session) signsNoExtensionElsewhere() {
	s.next()
	for _, vote := range []Vote{s.vote(Prevote, 0), s.voteFor(Precommit, 0, BlockID{})} {
		signed, err := s.sign(vote)
		s.report.record("no extension signature on a vote of type "+itoa(int64(vote.Type)), "", noExtension(signed, err))
	}
}

func (s *session) skipsExtension() {
	s.next()
	vote := s.vote(Precommit, 0)
	vote.Extension, vote.SkipExtension = []byte("ignored"), true
	signed, err := s.node.SignVote(s.chainID, &vote)
	s.report.record("skip_extension_signing", "", noExtension(signed, err))
}

func noExtension(signed Signed, err error) error {
	if err == nil && len(signed.ExtensionSignature)+len(signed.NonRPExtensionSignature) > 0 {
		return errors.New("an extension signature nobody asked for")
	}
	return err
}

func (s *session) signsNonRPExtensions() {
	for _, size := range []int{0, 1, 1 << 10} {
		s.next()
		vote := s.vote(Precommit, 0)
		vote.Extension, vote.NonRPExtension = []byte("replay protected"), filler(size, 5)
		_, err := s.sign(vote)
		s.report.record(fmt.Sprintf("precommit with %d bytes of non-replay-protected extension", size), "", err)
	}
}

// keepsRawBytesApart tries to get a conflicting precommit signed as "raw bytes": as the value of a SignBytesRequest
// (v1, v2) and as a non-replay-protected extension, which is signed without any framing (v2). FilePV signs both.
func (s *session) keepsRawBytesApart() {
	if !s.SignBytes {
		return
	}
	s.next()
	vote := s.vote(Precommit, 0)
	vote.Extension = []byte("extension")
	if _, err := s.sign(vote); err != nil {
		s.report.record("precommit to be contradicted by raw bytes", "", err)
		return
	}
	conflicting := vote
	conflicting.BlockID = blockAt(s.height, "other")
	canonical := s.node.VoteSignBytes(s.chainID, conflicting)
	if !s.referenceFails("canonical vote in SignBytes", "signs it") {
		_, err := s.node.SignBytes(canonical)
		s.refuses("canonical vote in SignBytes", err)
	}
	if !s.NonRPExtensions || s.referenceFails("canonical vote as non-replay-protected extension", "signs it") {
		return
	}
	s.next()
	smuggler := s.vote(Precommit, 0)
	smuggler.NonRPExtension = bytes.Clone(canonical)
	s.refusesVote("canonical vote as non-replay-protected extension", smuggler)
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
