package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// node is a real single-validator node whose key only the signer has.
type node struct {
	version
	binary string
	home   string
	log    string
	// keyFile is the validator's key, moved out of the node's reach.
	keyFile string
	// seed is the node's identity.
	seed []byte
	// address of the validator, upper-case hex.
	address string
	rpc     rpc
	process *process
}

// newNode initialises a chain of one validator below dir.
func newNode(v version, binary, dir string) (*node, error) {
	return initNode(v, binary, dir, 1)
}

// newNodeOfKey initialises a chain whose validator has this key, and whose first block is of this height.
func newNodeOfKey(v version, binary, dir, keyFile string, height int64) (*node, error) {
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, err
	}
	for path, content := range map[string][]byte{
		filepath.Join("config", "priv_validator_key.json"): key,
		filepath.Join("data", "priv_validator_state.json"): []byte(`{"height":"0","round":0,"step":0}`),
	} {
		path = filepath.Join(dir, "node", path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, err
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return nil, err
		}
	}
	return initNode(v, binary, dir, height)
}

func initNode(v version, binary, dir string, height int64) (*node, error) {
	n := &node{version: v, binary: binary, home: filepath.Join(dir, "node"), log: filepath.Join(dir, "node.log")}
	if err := runToEnd(n.log, binary, "init", "--home", n.home); err != nil {
		return nil, err
	}
	if err := n.editGenesis(height); err != nil {
		return nil, err
	}
	if err := n.takeKey(dir); err != nil {
		return nil, err
	}
	return n, n.readSeed()
}

func (n *node) configFile(name string) string { return filepath.Join(n.home, "config", name) }

// editGenesis sets the chain id and the first height, and switches vote extensions on from there.
func (n *node) editGenesis(height int64) error {
	first := strconv.FormatInt(height, 10)
	return editJSON(n.configFile("genesis.json"), func(genesis map[string]any) error {
		genesis["chain_id"], genesis["initial_height"] = chainID, first
		if n.extensions == nil {
			return nil
		}
		object := genesis
		for _, key := range n.extensions[:len(n.extensions)-1] {
			next, ok := object[key].(map[string]any)
			if !ok {
				return fmt.Errorf("the genesis file has no `%s`", key)
			}
			object = next
		}
		object[n.extensions[len(n.extensions)-1]] = first
		return nil
	})
}

// takeKey moves the validator's key away. The node makes itself a new, useless one: blocks prove that the signer signs.
func (n *node) takeKey(dir string) error {
	n.keyFile = filepath.Join(dir, "priv_validator_key.json")
	if err := os.Rename(n.configFile("priv_validator_key.json"), n.keyFile); err != nil {
		return err
	}
	var key struct {
		Address string `json:"address"`
	}
	err := readJSON(n.keyFile, &key)
	n.address = key.Address
	return err
}

func (n *node) readSeed() error {
	var file struct {
		PrivKey struct {
			Value string `json:"value"`
		} `json:"priv_key"`
	}
	if err := readJSON(n.configFile("node_key.json"), &file); err != nil {
		return err
	}
	key, err := base64.StdEncoding.DecodeString(file.PrivKey.Value)
	if err != nil || len(key) != 64 {
		return fmt.Errorf("node_key.json holds no Ed25519 key: %v", err)
	}
	n.seed = key[:32]
	return nil
}

// configure writes the node's config.toml for the given privval address.
func (n *node) configure(privval string) error {
	rpcPort, err := freePort()
	if err != nil {
		return err
	}
	p2pPort, err := freePort()
	if err != nil {
		return err
	}
	n.rpc = newRPC(rpcPort)
	file := n.configFile("config.toml")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	config := tomlFile(text)
	config.set("", "proxy_app", `"kvstore"`)
	config.set("", "priv_validator_laddr", fmt.Sprintf("%q", privval))
	config.set("rpc", "laddr", fmt.Sprintf(`"tcp://127.0.0.1:%d"`, rpcPort))
	config.set("p2p", "laddr", fmt.Sprintf(`"tcp://127.0.0.1:%d"`, p2pPort))
	config.set("p2p", "pex", "false")
	config.set("p2p", "addr_book_strict", "false")
	config.set("consensus", "timeout_commit", `"1ms"`)
	config.set("consensus", "skip_timeout_commit", "true") // gone in v2
	return os.WriteFile(file, config, 0o644)
}

func (n *node) run() error {
	process, err := start("node", n.log, n.binary, "start", "--home", n.home)
	n.process = process
	return err
}

// waitForListener waits until the node has printed, since its log was that long, that it waits for a signer.
func (n *node) waitForListener(logSize int) error {
	return waitFor("listening node", time.Minute, func() (bool, error) {
		log, err := os.ReadFile(n.log)
		return err == nil && bytes.Contains(log[logSize:], []byte("SignerListener: Listening for new connection")), err
	}, n.process)
}

func (n *node) logSize() int {
	info, err := os.Stat(n.log)
	if err != nil {
		return 0
	}
	return int(info.Size())
}

// tomlFile is a config.toml that is edited line by line, which keeps everything else as `init` wrote it.
type tomlFile []byte

// set replaces the value of a key that the section has; other keys are left out, since releases differ.
func (f *tomlFile) set(section, key, value string) {
	assignment := regexp.MustCompile(`^` + regexp.QuoteMeta(key) + `\s*=`)
	current := ""
	lines := strings.Split(string(*f), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "[") {
			current = strings.Trim(line, "[] \r")
		}
		if current == section && assignment.MatchString(line) {
			lines[i] = key + " = " + value
		}
	}
	*f = tomlFile(strings.Join(lines, "\n"))
}

func readJSON(path string, into any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("read `%s`: %w", path, err)
	}
	return nil
}

func editJSON(path string, edit func(map[string]any) error) error {
	var content map[string]any
	if err := readJSON(path, &content); err != nil {
		return err
	}
	if err := edit(content); err != nil {
		return err
	}
	data, err := json.MarshalIndent(content, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}
