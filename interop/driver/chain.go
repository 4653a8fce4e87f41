package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"
)

const (
	// firstBlocks must be made before anything is killed, nextBlocks after every restart.
	firstBlocks, nextBlocks = 20, 10
	// blocksLimit is how long making them may take: v2's kvstore asks for one second per block.
	blocksLimit = 90 * time.Second
	// outage is how long a killed program stays away.
	outage = time.Second
)

// chain is a real node with a signer, being killed and restarted.
type chain struct {
	node   *node
	signer *signer
	at     addresses
	notes  []string
}

// close ends what is still running.
func (c *chain) close() {
	c.node.process.kill()
	c.signer.process.kill()
}

// stage is a part of what a chain goes through.
type stage struct {
	name string
	act  func() error
}

// run makes blocks through every order of deaths and returns a summary.
func (c *chain) run() (string, error) {
	return c.through([]stage{
		{"first blocks", c.firstBlocks},
		{"node killed", c.nodeKilled},
		{"signer killed", c.signerKilled},
		{"both killed, node first back", c.nodeBackFirst},
		{"both killed, signer first back", c.signerBackFirst},
		{"every commit signed", c.everyCommitSigned},
		{"stop", c.stop},
		{"node log", c.checkNodeLog},
		{"signer log", c.checkSignerLog},
	})
}

// through goes through the stages in turn and returns what was noted on the way.
func (c *chain) through(stages []stage) (string, error) {
	for _, stage := range stages {
		if err := stage.act(); err != nil {
			return "", fmt.Errorf("%s: %w", stage.name, err)
		}
	}
	return strings.Join(c.notes, ", "), nil
}

func (c *chain) note(format string, args ...any) {
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
}

func (c *chain) firstBlocks() error {
	if err := c.signer.run(); err != nil {
		return err
	}
	return c.startNode()
}

// startNode starts the node for the first time, with its signer running.
func (c *chain) startNode() error {
	if err := c.node.run(); err != nil {
		return err
	}
	start := time.Now()
	if err := c.reach(firstBlocks); err != nil {
		return err
	}
	c.note("%d blocks in %.1fs", firstBlocks, time.Since(start).Seconds())
	return nil
}

func (c *chain) nodeKilled() error {
	c.killNode()
	time.Sleep(outage)
	start := time.Now()
	if err := c.node.run(); err != nil {
		return err
	}
	return c.goesOn("node back", start)
}

func (c *chain) signerKilled() error {
	c.signer.process.kill()
	time.Sleep(outage)
	start := time.Now()
	if err := c.signer.run(); err != nil {
		return err
	}
	return c.goesOn("signer back", start)
}

// nodeBackFirst starts the node while there is no signer. It waits 3 s for one.
func (c *chain) nodeBackFirst() error {
	c.signer.process.kill()
	c.killNode()
	start, size := time.Now(), c.node.logSize()
	if err := c.node.run(); err != nil {
		return err
	}
	if err := c.node.waitForListener(size); err != nil {
		return err
	}
	if err := c.signer.run(); err != nil {
		return err
	}
	return c.goesOn("node then signer", start)
}

// signerBackFirst starts the signer while there is no node to connect to.
func (c *chain) signerBackFirst() error {
	c.killNode()
	c.signer.process.kill()
	start := time.Now()
	if err := c.signer.run(); err != nil {
		return err
	}
	time.Sleep(outage)
	if err := c.node.run(); err != nil {
		return err
	}
	return c.goesOn("signer then node", start)
}

func (c *chain) killNode() {
	c.node.process.kill()
	c.at.removeStaleSocket()
}

// goesOn wants more blocks than there were, and notes when the first of them came.
func (c *chain) goesOn(what string, start time.Time) error {
	before, err := c.heightNow()
	if err != nil {
		return err
	}
	if err := c.reach(before + 1); err != nil {
		return err
	}
	c.note("%s %.1fs", what, time.Since(start).Seconds())
	return c.reach(before + nextBlocks)
}

func (c *chain) heightNow() (int64, error) {
	var height int64
	err := waitFor("answer of the node's RPC", blocksLimit, func() (bool, error) {
		var err error
		height, err = c.node.rpc.height()
		return err == nil, err
	}, c.node.process, c.signer.process)
	return height, err
}

func (c *chain) reach(height int64) error {
	return waitFor(fmt.Sprintf("block %d", height), blocksLimit, func() (bool, error) {
		now, err := c.node.rpc.height()
		return now >= height, err
	}, c.node.process, c.signer.process)
}

// everyCommitSigned asks for the commit of every block made so far.
func (c *chain) everyCommitSigned() error {
	top, err := c.heightNow()
	if err != nil {
		return err
	}
	for height := int64(1); height < top; height++ {
		if err := c.node.rpc.signedBy(height, c.node.address); err != nil {
			return err
		}
	}
	c.note("%d commits signed", top-1)
	return nil
}

// stop ends the node before its signer: a node that waits for one takes long to stop.
func (c *chain) stop() error {
	if err := c.node.process.alive(); err != nil {
		return err
	}
	_ = c.node.process.terminate(20 * time.Second)
	return c.signer.stop()
}

var (
	ansi = regexp.MustCompile("\x1b\\[[0-9;]*m")
	// started is the line that starting the node puts into its log.
	started = regexp.MustCompile(`^\$ .* start `)
	// newBlock is logged when consensus has committed a block.
	newBlock = regexp.MustCompile(`(?i)finalizing commit of block`)
	// fatal are lines of a node whose consensus has stopped, or that sees itself vote twice.
	fatal = regexp.MustCompile(`(?i)consensus failure|panic|conflicting vote`)
	// refused are lines of a node that did not get a signature, or could not use it.
	refused = regexp.MustCompile(`(?i)failed signing|invalid proposal signature|error adding vote`)
)

// checkNodeLog looks for signatures that were refused or not accepted.
//
// Between a kill and the first block after it a few are as they should be, with CometBFT's own signer too:
//   - Reading its write-ahead log again, the node asks for the prevote of a round in which the precommit is signed
//     already: a step regression. It then finds its old prevote further down in that log.
//   - If it died between a proposal's signature and the log entry, it proposes again: with a later timestamp, which
//     is answered with the first signature (nodes ignore the timestamp in the answer), or another block, which is
//     refused. The round passes without a proposal.
func (c *chain) checkNodeLog() error {
	data, err := os.ReadFile(c.node.log)
	if err != nil {
		return err
	}
	starts, recovering, recoveries := 0, false, 0
	for _, line := range strings.Split(ansi.ReplaceAllString(string(data), ""), "\n") {
		switch {
		case started.MatchString(line):
			starts++
			recovering = starts > 1
		case fatal.MatchString(line), refused.MatchString(line) && !recovering:
			return fmt.Errorf("the node logged: %.800s", line)
		case refused.MatchString(line):
			recoveries++
		case newBlock.MatchString(line):
			recovering = false
		}
	}
	if recoveries > 0 {
		c.note("%d requests rightly refused in recovery", recoveries)
	}
	return nil
}

func (c *chain) checkSignerLog() error {
	data, err := os.ReadFile(c.signer.log)
	if err != nil {
		return err
	}
	for _, line := range strings.Split(string(data), "\n") {
		if strings.Contains(line, "panicked at") {
			return fmt.Errorf("the signer logged: %s", line)
		}
	}
	return nil
}
