package suite

import (
	"fmt"
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
	for _, outage := range []time.Duration{100 * time.Millisecond, time.Second, 4 * time.Second} {
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

// inTime checks the median, so that one slow moment of a busy machine is no failure; it returns milliseconds.
func (s *session) inTime(what string, times []time.Duration) float64 {
	middle := median(times)
	var err error
	if middle > s.reconnectLimit {
		err = fmt.Errorf("median of %v is %s, more than %s", times, middle, s.reconnectLimit)
	}
	s.report.record(what, fmt.Sprintf("usable again after %v", times), err)
	return millis(middle)
}
