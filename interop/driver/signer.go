package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const chainID = "interop-1"

// signer is a remote signer under test, prepared to dial one node.
type signer struct {
	log   string
	start func() (*process, error)
	// stopsCleanly says that SIGTERM must end it with exit code 0.
	stopsCleanly bool
	process      *process
}

func (s *signer) run() error {
	process, err := s.start()
	s.process = process
	return err
}

// stop ends the signer the polite way.
func (s *signer) stop() error {
	if !s.stopsCleanly {
		s.process.kill()
		return nil
	}
	if err := s.process.terminate(10 * time.Second); err != nil {
		return fmt.Errorf("stop the signer with SIGTERM: %w", err)
	}
	return nil
}

// signerSetup is what a signer needs to know.
type signerSetup struct {
	// dir is the signer's own directory.
	dir string
	// address is where the node listens, as the signer writes it.
	address string
	// keyFile is the priv_validator_key.json to sign with.
	keyFile string
	// identity is the seed of the signer's connection key.
	identity []byte
	// dialect is what the node speaks.
	dialect string
	// nonRPExtensions switches the signing of non-replay-protected extensions on.
	nonRPExtensions bool
	// namesDialect has the file name what the node speaks; without, what the node says counts.
	namesDialect bool
	// habit is a setting that does not survive an upgrade.
	habit habit
}

// newMonosign sets monosign up like an operator would: a configuration file, the key imported, the state created.
func newMonosign(binary string, setup signerSetup) (*signer, error) {
	path := func(parts ...string) string { return filepath.Join(append([]string{setup.dir}, parts...)...) }
	for _, dir := range []string{path("secrets"), path("state")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	identity := base64.StdEncoding.EncodeToString(setup.identity)
	config := path("monosign.toml")
	for file, text := range map[string]string{
		path("secrets", "secret_connection.key"): identity,
		config:                                   monosignConfig(setup, path),
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	log := path("signer.log")
	commands := [][]string{
		{"softsign", "import", setup.keyFile, "--output", path("secrets", "consensus.key"), "--plaintext"},
		{"state", "init", "-c", config, "--chain", chainID},
	}
	if setup.habit == noHabit {
		// What it foretells is what the rest of the test shows.
		commands = append(commands, []string{"check-upgrade", "-c", config, "--to", setup.dialect})
	}
	for _, args := range commands {
		if err := runToEnd(log, binary, args...); err != nil {
			return nil, err
		}
	}
	start := func() (*process, error) { return start("signer", log, binary, "start", "-c", config) }
	return &signer{log: log, start: start, stopsCleanly: true}, nil
}

func monosignConfig(setup signerSetup, path func(...string) string) string {
	nonRPExtensions := ""
	if setup.nonRPExtensions {
		nonRPExtensions = "sign_non_rp_extensions = true\n"
	}
	address, dialect := setup.address, "auto"
	if setup.namesDialect {
		dialect = setup.dialect
	}
	if setup.habit == pinned {
		address = strings.Replace(address, "tcp://", "tcp://0123456789abcdef0123456789abcdef01234567@", 1)
	}
	return fmt.Sprintf(`[[chain]]
id = %[1]q
key_format = { type = "cosmos-json" }
state_file = %[2]q
%[3]s
[[validator]]
chain_id = %[1]q
addr = %[4]q
secret_key = %[5]q
protocol_version = %[7]q
reconnect = %[8]t

[[providers.softsign]]
chain_ids = [%[1]q]
path = %[6]q
allow_plaintext_key = true
`, chainID, path("state", chainID+".record"), nonRPExtensions, address,
		path("secrets", "secret_connection.key"), path("secrets", "consensus.key"), dialect, setup.habit != noReconnects)
}

// newReference sets up CometBFT's own signer, which the client binary contains.
func newReference(client string, setup signerSetup) (*signer, error) {
	if err := os.MkdirAll(setup.dir, 0o700); err != nil {
		return nil, err
	}
	state, log := filepath.Join(setup.dir, "state.json"), filepath.Join(setup.dir, "signer.log")
	if err := os.WriteFile(state, []byte(`{"height":"0","round":0,"step":0}`), 0o600); err != nil {
		return nil, err
	}
	start := func() (*process, error) {
		return start("signer", log, client, "-reference", "-address", setup.address, "-chain", chainID,
			"-key", setup.keyFile, "-state", state, "-seed", base64.StdEncoding.EncodeToString(setup.identity))
	}
	return &signer{log: log, start: start}, nil
}

func newSeed() []byte {
	seed := make([]byte, ed25519.SeedSize)
	_, _ = rand.Read(seed) // never fails: crypto/rand ends the program instead
	return seed
}
