package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"monosign.interop/suite"
)

// clientLimit is how long one run of the suite may take.
const clientLimit = 3 * time.Minute

// client runs the suite with one release's own node-side code.
type client struct {
	binary  string
	log     string
	address string
	keyFile string
	seed    []byte
	heights int
	// againstReference skips what CometBFT's own signer gets wrong.
	againstReference bool
}

// run starts the signer next to the suite and returns a summary, and an error naming the checks that failed.
func (c client) run(s *signer) (string, error) {
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return "", err
	}
	defer log.Close()
	cmd := exec.Command(c.binary, "-json", "-address", c.address, "-chain", chainID, "-key", c.keyFile,
		"-seed", base64.StdEncoding.EncodeToString(c.seed), "-heights", fmt.Sprint(c.heights),
		fmt.Sprintf("-against-reference=%t", c.againstReference))
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, log
	suiteProcess, err := launch("client", cmd)
	if err != nil {
		return "", err
	}
	defer suiteProcess.kill()
	if err := s.run(); err != nil {
		return "", err
	}
	defer func() { s.process.kill() }()
	select {
	case <-suiteProcess.done:
	case <-time.After(clientLimit):
		return "", fmt.Errorf("the client did not end within %s", clientLimit)
	}
	summary, failures := summarise(output.Bytes(), suiteProcess)
	if err := s.process.alive(); err != nil {
		return summary, errors.Join(failures, err)
	}
	return summary, errors.Join(failures, s.stop())
}

// summarise reads the suite's report.
func summarise(output []byte, ended *process) (string, error) {
	var report suite.Report
	if err := json.Unmarshal(output, &report); err != nil {
		return "", fmt.Errorf("the client printed no report (%s): %w", ended.cmd.ProcessState, err)
	}
	summary := fmt.Sprintf("%d checks, %d signatures, p50 %d µs, p99 %d µs, back in %.0f ms after a drop, %.0f ms after a listener restart",
		report.Passed, report.Signatures, report.P50, report.P99, report.DropMillis, report.RestartMillis)
	if report.Skipped > 0 {
		summary += fmt.Sprintf(", %d skipped", report.Skipped)
	}
	var failures error
	for _, check := range report.Checks {
		if check.Result == suite.Fail {
			failures = errors.Join(failures, fmt.Errorf("%s: %s", check.Name, check.Detail))
		}
	}
	if failures == nil && ended.err != nil {
		failures = fmt.Errorf("the client failed: %w", ended.err)
	}
	return summary, failures
}

// writeKey makes up a validator key in CometBFT's file format.
func writeKey(dir string) (string, error) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return "", err
	}
	address := sha256.Sum256(public)
	type typed struct {
		Type  string `json:"type"`
		Value []byte `json:"value"`
	}
	data, err := json.MarshalIndent(struct {
		Address string `json:"address"`
		Public  typed  `json:"pub_key"`
		Private typed  `json:"priv_key"`
	}{
		Address: fmt.Sprintf("%X", address[:20]),
		Public:  typed{"tendermint/PubKeyEd25519", public},
		Private: typed{"tendermint/PrivKeyEd25519", private},
	}, "", "  ")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "priv_validator_key.json")
	return file, os.WriteFile(file, data, 0o600)
}
