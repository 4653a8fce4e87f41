package suite

import (
	"fmt"
	"slices"
	"time"
)

// reconnectDeadline is where waiting for a signer ends.
const reconnectDeadline = 30 * time.Second

// reconnects measures how long the node is without a signer after it dropped the connection, and after its
// listener was gone for a while.
func (s *session) reconnects() {
	var drops []time.Duration
	for range 5 {
		start := time.Now()
		s.node.Drop()
		if !s.usableSince("connection drop", start, &drops) {
			return
		}
	}
	s.report.DropMillis = s.inTime("connection drop", drops)

	var restarts []time.Duration
	for _, outage := range s.outages {
		if err := s.node.Stop(); err != nil {
			s.report.record("listener restart", "", err)
			return
		}
		time.Sleep(outage)
		if err := s.listen(); err != nil {
			s.report.record("listener restart", "", err)
			return
		}
		if !s.usableSince(fmt.Sprintf("listener gone for %s", outage), time.Now(), &restarts) {
			return
		}
	}
	s.report.RestartMillis = s.inTime("listener restart", restarts)
	s.next()
	s.report.record("signs after reconnecting", "", s.propose(s.proposal(0)))
}

// usableSince asks for the public key until it is answered and keeps the time that took.
func (s *session) usableSince(what string, start time.Time, times *[]time.Duration) bool {
	for {
		_, err := s.node.PublicKey(s.chainID)
		took := time.Since(start)
		if err == nil {
			*times = append(*times, took)
			return true
		}
		if took > reconnectDeadline {
			s.report.record(what, "", fmt.Errorf("no signer after %s: %w", reconnectDeadline, err))
			return false
		}
	}
}

// inTime checks the slowest: a signer whose pauses between dials grow with the outage fails only after the long
// ones. It returns milliseconds.
func (s *session) inTime(what string, times []time.Duration) float64 {
	slowest := slices.Max(times)
	var err error
	if slowest > s.reconnectLimit {
		err = fmt.Errorf("usable again after %v, some more than %s", times, s.reconnectLimit)
	}
	s.report.record(what, fmt.Sprintf("usable again after %v", times), err)
	return millis(slowest)
}
