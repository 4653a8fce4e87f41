package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// shape is how many of how many cosigners sign.
type shape struct{ threshold, members int }

// group is cosigners in the place of a signer. The first serves the node.
type group struct {
	shape
	cosigners []*signer
}

// newGroup splits the key as an operator would and sets up a cosigner for each share.
func newGroup(binary string, setup signerSetup, of shape) (*group, error) {
	if err := os.MkdirAll(setup.dir, 0o700); err != nil {
		return nil, err
	}
	path := func(format string, args ...any) string {
		return filepath.Join(setup.dir, fmt.Sprintf(format, args...))
	}
	log := path("split.log")
	split := []string{"threshold", "split", "--key", setup.keyFile, "--chain", chainID, "--new-validator", "-o", path("shares"),
		"--threshold", fmt.Sprint(of.threshold), "--shares", fmt.Sprint(of.members)}
	ports := make([]int, of.members)
	for i := range of.members {
		recipient, err := outputOf(binary, "threshold", "recipient", "-o", path("%d.identity", i+1))
		if err != nil {
			return nil, err
		}
		split = append(split, "--recipient", strings.TrimSpace(recipient))
		if ports[i], err = freePort(); err != nil {
			return nil, err
		}
	}
	if err := runToEnd(log, binary, split...); err != nil {
		return nil, err
	}
	identity := base64.StdEncoding.EncodeToString(setup.identity)
	if err := os.WriteFile(path("secret_connection.key"), []byte(identity), 0o600); err != nil {
		return nil, err
	}
	g := &group{shape: of}
	for i := range of.members {
		config := path("%d.toml", i+1)
		if err := os.WriteFile(config, []byte(cosignerConfig(setup, path, ports, i)), 0o600); err != nil {
			return nil, err
		}
		if err := runToEnd(log, binary, "state", "init", "-c", config); err != nil {
			return nil, err
		}
		log := path("cosigner-%d.log", i+1)
		start := func() (*process, error) {
			return start(fmt.Sprintf("cosigner %d", i+1), log, binary, "start", "-c", config)
		}
		g.cosigners = append(g.cosigners, &signer{log: log, start: start, stopsCleanly: true})
	}
	return g, nil
}

func cosignerConfig(setup signerSetup, path func(string, ...any) string, ports []int, i int) string {
	text := fmt.Sprintf("admin_socket = %q\n[[chain]]\nid = %q\nstate_file = %q\n", path("%d.sock", i+1), chainID, path("%d.record", i+1))
	if setup.nonRPExtensions {
		text += "sign_non_rp_extensions = true\n"
	}
	if i == 0 {
		text += fmt.Sprintf("[[validator]]\nchain_id = %q\naddr = %q\nsecret_key = %q\nreconnect = true\n",
			chainID, setup.address, path("secret_connection.key"))
	}
	text += fmt.Sprintf("[[providers.threshold]]\nchain_ids = [%q]\ngroup = %q\nshare = %q\nidentity_file = %q\nlisten = \"tcp://127.0.0.1:%d\"\n",
		chainID, path("shares/group.json"), path("shares/cosigner-%d.age", i+1), path("%d.identity", i+1), ports[i])
	for peer, port := range ports {
		if peer != i {
			text += fmt.Sprintf("[[providers.threshold.peer]]\nid = %d\naddr = \"tcp://127.0.0.1:%d\"\n", peer+1, port)
		}
	}
	return text
}

// start runs all of them and waits until each takes part.
func (g *group) start() error {
	for _, cosigner := range g.cosigners {
		if err := cosigner.run(); err != nil {
			return err
		}
	}
	for i := range g.cosigners {
		if err := g.takesPart(i, 1); err != nil {
			return err
		}
	}
	return nil
}

// takesPart waits until a cosigner has joined for so many times.
func (g *group) takesPart(i, times int) error {
	cosigner := g.cosigners[i]
	return waitFor(fmt.Sprintf("cosigner %d to take part", i+1), 30*time.Second, func() (bool, error) {
		log, err := os.ReadFile(cosigner.log)
		return err == nil && strings.Count(string(log), "takes part now") >= times, err
	}, cosigner.process)
}

func (g *group) close() {
	for _, cosigner := range g.cosigners {
		cosigner.process.kill()
	}
}

// groupChain is a real node whose signer is a group, with cosigners being killed and stopped.
type groupChain struct {
	chain
	group *group
}

// run makes blocks while as many cosigners as may be are away, each in its turn.
func (c *groupChain) run() (string, error) {
	return c.through([]stage{
		{"first blocks", c.firstBlocks},
		{"cosigners killed", c.cosignersKilled},
		{"cosigners stopped", c.cosignersStopped},
		{"the node's own cosigner", c.servingCosigner},
		{"every commit signed", c.everyCommitSigned},
		{"stop", c.stopAll},
		{"node log", c.checkNodeLog},
		{"cosigners' logs", c.checkLogs},
	})
}

func (c *groupChain) firstBlocks() error {
	if err := c.group.start(); err != nil {
		return err
	}
	c.signer = c.group.cosigners[0]
	return c.startNode()
}

// away is which cosigners are away together: as many as the group bears, and never the node's own.
func (c *groupChain) away() [][]int {
	bears := c.group.members - c.group.threshold
	var sets [][]int
	for first := 1; first < c.group.members; first++ {
		var set []int
		for i := 0; i < bears; i++ {
			set = append(set, 1+(first-1+i)%(c.group.members-1))
		}
		sets = append(sets, set)
	}
	return sets
}

func (c *groupChain) cosignersKilled() error {
	joined := make([]int, c.group.members)
	for _, set := range c.away() {
		for _, i := range set {
			c.group.cosigners[i].process.kill()
		}
		if err := c.goesOn(fmt.Sprintf("without %v", names(set)), time.Now()); err != nil {
			return err
		}
		for _, i := range set {
			if err := c.group.cosigners[i].run(); err != nil {
				return err
			}
		}
		for _, i := range set {
			joined[i]++
			if err := c.group.takesPart(i, 1+joined[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *groupChain) cosignersStopped() error {
	for _, set := range c.away() {
		for _, i := range set {
			if err := c.group.cosigners[i].process.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				return err
			}
		}
		if err := c.goesOn(fmt.Sprintf("%v hung", names(set)), time.Now()); err != nil {
			return err
		}
		for _, i := range set {
			if err := c.group.cosigners[i].process.cmd.Process.Signal(syscall.SIGCONT); err != nil {
				return err
			}
		}
		// Away for seconds at the most, so connections may have ended: until blocks are made with all of them again.
		if err := c.goesOn("all", time.Now()); err != nil {
			return err
		}
	}
	return nil
}

// servingCosigner kills and stops the one that the node is connected to.
func (c *groupChain) servingCosigner() error {
	if err := c.signerKilled(); err != nil {
		return err
	}
	process := c.signer.process.cmd.Process
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	start := time.Now()
	time.Sleep(outage)
	if err := process.Signal(syscall.SIGCONT); err != nil {
		return err
	}
	return c.goesOn("own cosigner hung", start)
}

// stopAll ends the node before its signers.
func (c *groupChain) stopAll() error {
	if err := c.stop(); err != nil {
		return err
	}
	for _, cosigner := range c.group.cosigners[1:] {
		if err := cosigner.stop(); err != nil {
			return err
		}
	}
	return nil
}

func (c *groupChain) checkLogs() error {
	for _, cosigner := range c.group.cosigners {
		c.signer = cosigner
		if err := c.checkSignerLog(); err != nil {
			return err
		}
	}
	return nil
}

func names(set []int) []int {
	var names []int
	for _, i := range set {
		names = append(names, i+1)
	}
	return names
}

// runGroup has a release's node make blocks with a group of this shape.
func (s settings) runGroup(v version, t transport, of shape, nodeBinary, dir string) (string, error) {
	node, err := newNode(v, nodeBinary, dir)
	if err != nil {
		return "", err
	}
	identity := newSeed()
	at, err := newAddresses(t, dir, node.seed, identity)
	if err != nil {
		return "", err
	}
	group, err := newGroup(s.monosign, signerSetup{
		dir: filepath.Join(dir, "signer"), address: at.signer, keyFile: node.keyFile,
		identity: identity, dialect: v.dialect, nonRPExtensions: v.nonRPExtensions,
	}, of)
	if err != nil {
		return "", fmt.Errorf("set up the cosigners: %w", err)
	}
	if err := node.configure(at.node); err != nil {
		return "", err
	}
	chain := &groupChain{chain: chain{node: node, at: at}, group: group}
	defer group.close()
	defer node.process.kill()
	return chain.run()
}
