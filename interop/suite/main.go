package suite

import (
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"
)

// Main is the program of one release: it listens as a node, runs every check against the signer that dials in,
// prints a table (or JSON) on standard output and exits 0 if all passed, 1 if one failed, 2 on wrong usage.
//
// With -reference it is CometBFT's own signer instead, to check the suite itself.
func Main(release Release) {
	options := parseOptions()
	if options.reference {
		fatal(release.Reference(ReferenceSigner{
			Address: options.address, ChainID: options.chainID, Seed: options.seed,
			KeyFile: options.keyFile, StateFile: options.stateFile, Stock: options.stock,
		}))
	}
	report := run(release, options)
	if options.json {
		fatal(json.NewEncoder(os.Stdout).Encode(report))
	} else {
		report.print(os.Stdout)
	}
	if report.Failed > 0 {
		os.Exit(1)
	}
}

type options struct {
	address          string
	chainID          string
	keyFile          string
	stateFile        string
	seed             []byte
	heights          int
	reconnectLimit   time.Duration
	outages          []time.Duration
	json             bool
	reference        bool
	stock            bool
	againstReference bool
}

func parseOptions() options {
	// Longer than a signer's first pauses between dials, and longer than its longer ones might be.
	o := options{outages: []time.Duration{100 * time.Millisecond, time.Second, 4 * time.Second}}
	flag.StringVar(&o.address, "address", "tcp://127.0.0.1:26658", "where to listen: tcp://, unix:// or (v0.40) noise://<signer>@ip:port")
	flag.StringVar(&o.chainID, "chain", "interop-1", "chain id")
	flag.StringVar(&o.keyFile, "key", "", "priv_validator_key.json that the signer signs with (its public key is what is expected)")
	flag.IntVar(&o.heights, "heights", 300, "heights to sign in a row")
	flag.DurationVar(&o.reconnectLimit, "reconnect-limit", 200*time.Millisecond, "time in which a lost signer must be back")
	flag.BoolVar(&o.json, "json", false, "print the report as JSON")
	flag.BoolVar(&o.againstReference, "against-reference", false, "skip what CometBFT's own signer is known to get wrong")
	flag.BoolVar(&o.reference, "reference", false, "be CometBFT's own signer and dial -address")
	flag.BoolVar(&o.stock, "stock", false, "with -reference: as CometBFT ships it, its faults on lost connections included")
	flag.StringVar(&o.stateFile, "state", "", "priv_validator_state.json, with -reference")
	seed := flag.String("seed", "", "base64 of the Ed25519 seed of this side's identity (noise:// only)")
	flag.Parse()
	if o.keyFile == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if *seed != "" {
		bytes, err := base64.StdEncoding.DecodeString(*seed)
		fatal(err)
		o.seed = bytes
	}
	return o
}

// expectedKey reads the raw public key out of a priv_validator_key.json.
func expectedKey(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var file struct {
		PublicKey struct {
			Value []byte `json:"value"`
		} `json:"pub_key"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("read `%s`: %w", path, err)
	}
	return file.PublicKey.Value, nil
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
