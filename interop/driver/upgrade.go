package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	// upgradeBlocks are made by the old release, and then by the new one.
	upgradeBlocks = 2
	// noBlockWithin is how long a node is watched that is to make no block. It waits 3 s for its signer.
	noBlockWithin = 6 * time.Second
)

// operator is what the configuration of a signer is like that has served a release until now.
type operator struct {
	version
	transport
	// habit is a setting that does not survive an upgrade; empty for none.
	habit habit
}

type habit string

const (
	noHabit      habit = ""
	pinned       habit = "identity pinned"
	noReconnects habit = "reconnect off"
)

func (o operator) String() string {
	if o.habit == noHabit {
		return "from " + o.name
	}
	return fmt.Sprintf("from %s, %s", o.name, o.habit)
}

// operators are all that these releases may have: each transport, and on tcp each habit.
func operators(from version) []operator {
	var all []operator
	for _, t := range from.transports {
		all = append(all, operator{version: from, transport: t})
	}
	return append(all, operator{from, tcp, pinned}, operator{from, tcp, noReconnects})
}

// runUpgrades moves a signer from each of the releases to each other, and compares with what `check-upgrade` foretold.
func (s settings) runUpgrades(chosen []version) []row {
	nodes := map[string]string{}
	var rows []row
	for _, v := range chosen {
		binary, err := s.builder.node(v)
		if err != nil {
			return append(rows, s.show(row{version: v, part: "build", err: err}))
		}
		nodes[v.name] = binary
	}
	for _, to := range chosen {
		for _, from := range chosen {
			if from.name == to.name {
				continue
			}
			for _, o := range operators(from) {
				rows = append(rows, s.part(to, o.transport, o.String(), func(dir string) (string, error) {
					u := upgrade{settings: s, from: o, to: to, nodes: nodes, dir: dir}
					defer u.close()
					return u.run()
				}))
			}
		}
	}
	return rows
}

// upgrade is a chain whose validator goes from one release to another, with the same key, signer and record. The new
// release begins where the old one ended, as after an upgrade by export: releases do not read each other's databases.
type upgrade struct {
	settings settings
	from     operator
	to       version
	nodes    map[string]string
	dir      string

	signer   *signer
	old, new *node
	at       addresses
}

func (u *upgrade) close() {
	for _, n := range []*node{u.old, u.new} {
		if n != nil {
			n.process.kill()
		}
	}
	if u.signer != nil {
		u.signer.process.kill()
	}
}

// foretold is the part of the report of `check-upgrade` that is looked at.
type foretold struct {
	Ready bool   `json:"ready"`
	Diff  string `json:"diff"`
	// Trials is shown where something is not as it should be.
	Trials json.RawMessage `json:"trials"`
}

func (u *upgrade) run() (string, error) {
	if err := u.setUp(); err != nil {
		return "", fmt.Errorf("set up: %w", err)
	}
	told, err := u.foretell()
	if err != nil {
		return "", err
	}
	last, err := u.runOld()
	if err != nil {
		return "", fmt.Errorf("the old release: %w", err)
	}
	if err := u.makeNew(last); err != nil {
		return "", fmt.Errorf("make the new node: %w", err)
	}
	first := last + 1
	if !told.Ready {
		if err := u.makesNoBlock(); err != nil {
			return "", fmt.Errorf("as it is: %w", err)
		}
	} else if err := u.makesBlocks(first); err != nil {
		return "", fmt.Errorf("said to be ready as it is: %w", err)
	} else {
		first += upgradeBlocks
	}
	if told.Diff == "" {
		return "ready, and it was", nil
	}
	if err := u.change(told.Diff); err != nil {
		return "", fmt.Errorf("change the file as shown: %w", err)
	}
	if err := u.makesBlocks(first); err != nil {
		return "", fmt.Errorf("changed as shown: %w", err)
	}
	if told.Ready {
		return "ready, and it was; with the advised changes, too", nil
	}
	return "not ready, and it was not; with the changes it was", nil
}

func (u *upgrade) setUp() error {
	keyFile, err := writeKey(u.dir)
	if err != nil {
		return err
	}
	if u.old, err = newNodeOfKey(u.from.version, u.nodes[u.from.name], filepath.Join(u.dir, "old"), keyFile, 1); err != nil {
		return err
	}
	identity := newSeed()
	if u.at, err = newAddresses(u.from.transport, u.dir, u.old.seed, identity); err != nil {
		return err
	}
	if err := u.old.configure(u.at.node); err != nil {
		return err
	}
	u.signer, err = newMonosign(u.settings.monosign, signerSetup{
		dir: filepath.Join(u.dir, "signer"), address: u.at.signer, keyFile: keyFile, identity: identity,
		dialect: u.from.dialect, nonRPExtensions: u.from.nonRPExtensions, namesDialect: true, habit: u.from.habit,
	})
	return err
}

func (u *upgrade) signerDir() string { return filepath.Join(u.dir, "signer") }

// foretell asks what will come of the upgrade. The exit code must say the same as the report.
func (u *upgrade) foretell() (foretold, error) {
	command := exec.Command(u.settings.monosign, "check-upgrade", "-c", "monosign.toml", "--from", u.from.dialect,
		"--to", u.to.dialect, "--json")
	command.Dir = u.signerDir()
	output, err := command.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return foretold{}, err
	}
	var told foretold
	if parseErr := json.Unmarshal(output, &told); parseErr != nil {
		return told, fmt.Errorf("check-upgrade printed no report: %w\n%s", parseErr, exit.Stderr)
	}
	if told.Ready != (err == nil) {
		return told, fmt.Errorf("check-upgrade says ready = %t and ends with: %v", told.Ready, err)
	}
	return told, nil
}

// runOld makes blocks with the old release and returns the height of the last one. A pinned identity is of a node that
// ran before this test: with it no old node could be served.
func (u *upgrade) runOld() (int64, error) {
	if u.from.habit == pinned {
		return 0, u.signer.run()
	}
	if err := u.old.run(); err != nil {
		return 0, err
	}
	// A signer that does not dial again must find it there.
	if err := u.old.waitForListener(0); err != nil {
		return 0, err
	}
	if err := u.signer.run(); err != nil {
		return 0, err
	}
	c := chain{node: u.old, signer: u.signer, at: u.at}
	if err := c.reach(upgradeBlocks); err != nil {
		return 0, err
	}
	last, err := c.heightNow()
	if err != nil {
		return 0, err
	}
	c.killNode()
	// It may have begun another one since.
	return last + 10, nil
}

// makeNew is the node of the new release, where the old one was.
func (u *upgrade) makeNew(last int64) error {
	var err error
	u.new, err = newNodeOfKey(u.to, u.nodes[u.to.name], filepath.Join(u.dir, "new"), u.old.keyFile, last+1)
	if err != nil {
		return err
	}
	// The node's own identity stays, which noise:// pins.
	key, err := os.ReadFile(u.old.configFile("node_key.json"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(u.new.configFile("node_key.json"), key, 0o600); err != nil {
		return err
	}
	at := u.at.node
	if u.from.transport == noise && !u.to.has(noise) {
		at = "tcp://" + at[strings.LastIndex(at, "@")+1:]
	}
	return u.new.configure(at)
}

// makesBlocks wants blocks from this height on, signed by our validator.
func (u *upgrade) makesBlocks(first int64) error {
	if u.new.process == nil || u.new.process.alive() != nil {
		u.at.removeStaleSocket()
		if err := u.new.run(); err != nil {
			return err
		}
	}
	top := first + upgradeBlocks
	if err := (&chain{node: u.new, signer: u.signer, at: u.at}).reach(top); err != nil {
		return err
	}
	// The commit of a block is in the next one.
	return u.new.rpc.signedBy(top-1, u.new.address)
}

// makesNoBlock starts the node, which must not get a signature; it may end for want of a signer.
func (u *upgrade) makesNoBlock() error {
	if err := u.new.run(); err != nil {
		return err
	}
	deadline := time.Now().Add(noBlockWithin)
	for time.Now().Before(deadline) && u.new.process.alive() == nil {
		if height, err := u.new.rpc.height(); err == nil && height > 0 {
			return fmt.Errorf("said not to be ready, and made block %d", height)
		}
		time.Sleep(pollEvery)
	}
	u.new.process.kill()
	return nil
}

// change applies the diff as an operator would, and starts the signer and the node anew. Nothing more is to be changed then.
func (u *upgrade) change(diff string) error {
	patch := exec.Command("git", "apply", "-p0", "-")
	patch.Dir, patch.Stdin = u.signerDir(), strings.NewReader(diff)
	if output, err := patch.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, output)
	}
	again, err := u.foretell()
	if err != nil {
		return err
	}
	// The releases stay as they are named on the command line, so that nothing is advised any more.
	if !again.Ready || again.Diff != "" {
		return fmt.Errorf("it is still not ready: %s%s", again.Diff, again.Trials)
	}
	u.new.process.kill()
	u.signer.process.kill()
	return u.signer.run()
}
