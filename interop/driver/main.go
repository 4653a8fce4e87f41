// Command driver tests monosign with real CometBFT code of each release: as the signer of a single-validator node
// that makes blocks while node and signer are killed and restarted, against the release's own privval client, and as
// the signer of a validator that goes from one release to another.
//
// Start it as interop/run; see interop/README.md.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	os.Exit(run())
}

type settings struct {
	builder   builder
	monosign  string
	reference bool
	nodes     bool
	clients   bool
	upgrades  bool
	only      string
	groups    []shape
	heights   int
	keep      bool
	buildOnly bool
}

func run() int {
	killAllOnInterrupt()
	settings, names := parseFlags()
	chosen, err := selected(names)
	if err == nil {
		err = settings.check()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return 2
	}
	var rows []row
	if settings.nodes || settings.clients {
		for _, v := range chosen {
			rows = append(rows, settings.runVersion(v)...)
		}
	}
	if settings.upgrades {
		rows = append(rows, settings.runUpgrades(chosen)...)
	}
	return printTable(rows)
}

func parseFlags() (settings, []string) {
	var s settings
	interop := flag.String("interop", ".", "the interop directory")
	only := flag.String("only", "", "run only `nodes`, clients or upgrades (from each release to each other)")
	flag.BoolVar(&s.reference, "reference", false, "test CometBFT's own signer instead: checks the tests themselves")
	flag.BoolVar(&s.buildOnly, "build", false, "only build the nodes and clients")
	flag.BoolVar(&s.keep, "keep", false, "keep the logs of what passed, too")
	flag.IntVar(&s.heights, "heights", 300, "heights the clients ask for in a row")
	flag.Func("group", "put a group of cosigners, as 2/3, in the signer's place before the nodes; may be repeated", func(text string) error {
		var of shape
		if _, err := fmt.Sscanf(text, "%d/%d", &of.threshold, &of.members); err != nil {
			return fmt.Errorf("`%s` is not of the form 2/3", text)
		}
		s.groups = append(s.groups, of)
		return nil
	})
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), `usage: interop/run [FLAG…] [VERSION…]

Versions: %s (default: all)
MONOSIGN_BIN             the binary to test (default: target/release/monosign)
MONOSIGN_INTEROP_CACHE   where built nodes and clients are kept (default: interop/.cache)

`, allNames())
		flag.PrintDefaults()
	}
	flag.Parse()
	root, err := filepath.Abs(*interop)
	if err != nil {
		root = *interop
	}
	s.builder = builder{interop: root, cache: absolute(envOr("MONOSIGN_INTEROP_CACHE", filepath.Join(root, ".cache")))}
	s.monosign = absolute(envOr("MONOSIGN_BIN", filepath.Join(root, "..", "target", "release", "monosign")))
	switch s.only = *only; s.only {
	case "":
		s.nodes = true
		s.clients = len(s.groups) == 0
		s.upgrades = s.clients && !s.reference && !s.buildOnly
	case "nodes":
		s.nodes = true
	case "clients":
		s.clients = true
	case "upgrades":
		s.upgrades = true
	}
	return s, flag.Args()
}

func (s settings) check() error {
	if !s.nodes && !s.clients && !s.upgrades {
		return fmt.Errorf("unknown part `%s`: choose from nodes, clients, upgrades", s.only)
	}
	if s.upgrades && s.only != "" && (s.reference || s.buildOnly) {
		return errors.New("upgrades are monosign's, and are run, not built")
	}
	if s.reference && len(s.groups) > 0 {
		return errors.New("-reference and -group: CometBFT's own signer is no group")
	}
	if s.reference || s.buildOnly {
		return nil
	}
	if _, err := os.Stat(s.monosign); err != nil {
		return fmt.Errorf("no signer to test at `%s`: run `cargo build --release`, or set MONOSIGN_BIN", s.monosign)
	}
	return nil
}

// row is one line of the final table.
type row struct {
	version   version
	transport transport
	part      string
	err       error
	detail    string
	took      time.Duration
}

// runVersion runs all parts for one release. A failed part does not keep the others from running.
func (s settings) runVersion(v version) []row {
	clientBinary, err := s.builder.client(v)
	if err != nil {
		return []row{s.show(row{version: v, part: "build", err: err})}
	}
	var rows []row
	var nodeBinary string
	if s.nodes {
		if nodeBinary, err = s.builder.node(v); err != nil {
			rows = append(rows, s.show(row{version: v, part: "build", err: err}))
		}
	}
	if s.buildOnly {
		return rows
	}
	for _, t := range v.transports {
		if s.clients {
			rows = append(rows, s.part(v, t, "client", func(dir string) (string, error) {
				return s.runClient(v, t, clientBinary, dir)
			}))
		}
		for _, of := range s.groups {
			if nodeBinary == "" {
				break
			}
			rows = append(rows, s.part(v, t, fmt.Sprintf("node-%d-of-%d", of.threshold, of.members), func(dir string) (string, error) {
				return s.runGroup(v, t, of, nodeBinary, dir)
			}))
		}
		if nodeBinary != "" && len(s.groups) == 0 {
			rows = append(rows, s.part(v, t, "node", func(dir string) (string, error) {
				return s.runNode(v, t, nodeBinary, clientBinary, dir)
			}))
		}
	}
	return rows
}

// part runs one test in a directory of its own, which is kept if the test fails.
func (s settings) part(v version, t transport, name string, test func(dir string) (string, error)) row {
	r := row{version: v, transport: t, part: name}
	place := strings.NewReplacer(",", "", " ", "-").Replace(fmt.Sprintf("interop-%s-%s-%s-", v.name, t, name))
	dir, err := os.MkdirTemp("", place)
	if err != nil {
		r.err = err
		return s.show(r)
	}
	start := time.Now()
	r.detail, r.err = test(dir)
	r.took = time.Since(start)
	s.show(r)
	switch {
	case r.err != nil:
		showLogs(dir)
	case s.keep:
		fmt.Printf("      logs: %s\n", dir)
	default:
		_ = os.RemoveAll(dir)
	}
	return r
}

func (s settings) runClient(v version, t transport, binary, dir string) (string, error) {
	nodeSeed := newSeed()
	keyFile, err := writeKey(dir)
	if err != nil {
		return "", err
	}
	at, signer, err := s.newSigner(v, t, binary, dir, keyFile, nodeSeed)
	if err != nil {
		return "", err
	}
	return client{
		binary: binary, log: filepath.Join(dir, "client.log"), address: at.node, keyFile: keyFile,
		seed: nodeSeed, heights: s.heights, againstReference: s.reference,
	}.run(signer)
}

func (s settings) runNode(v version, t transport, binary, clientBinary, dir string) (string, error) {
	node, err := newNode(v, binary, dir)
	if err != nil {
		return "", err
	}
	at, signer, err := s.newSigner(v, t, clientBinary, dir, node.keyFile, node.seed)
	if err != nil {
		return "", err
	}
	if err := node.configure(at.node); err != nil {
		return "", err
	}
	chain := &chain{node: node, signer: signer, at: at}
	defer chain.close()
	return chain.run()
}

// newSigner prepares the signer under test for a node with this identity.
func (s settings) newSigner(v version, t transport, clientBinary, dir, keyFile string, nodeSeed []byte) (addresses, *signer, error) {
	identity := newSeed()
	at, err := newAddresses(t, dir, nodeSeed, identity)
	if err != nil {
		return at, nil, err
	}
	setup := signerSetup{
		dir: filepath.Join(dir, "signer"), address: at.signer, keyFile: keyFile,
		identity: identity, dialect: v.dialect, nonRPExtensions: v.nonRPExtensions,
	}
	var under *signer
	if s.reference {
		under, err = newReference(clientBinary, setup)
	} else {
		under, err = newMonosign(s.monosign, setup)
	}
	if err != nil {
		err = fmt.Errorf("set up the signer: %w", err)
	}
	return at, under, err
}

// show prints a row as soon as it is known.
func (s settings) show(r row) row {
	fmt.Printf("%s  %s %s %s (%.1fs)\n", r.verdict(), r.version.name, r.transport, r.part, r.took.Seconds())
	if r.err != nil {
		fmt.Println(indent(r.err.Error()))
	}
	return r
}

func (r row) verdict() string {
	if r.err != nil {
		return "FAIL"
	}
	return "pass"
}

// showLogs prints the end of every log below a failed test's directory.
func showLogs(dir string) {
	const last = 30
	fmt.Printf("      logs: %s\n", dir)
	files, _ := filepath.Glob(filepath.Join(dir, "*.log"))
	nested, _ := filepath.Glob(filepath.Join(dir, "*", "*.log"))
	for _, file := range append(files, nested...) {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		lines := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
		if len(lines) > last {
			lines = lines[len(lines)-last:]
		}
		fmt.Printf("      --- last %d lines of %s\n", len(lines), file)
		for _, line := range lines {
			fmt.Printf("      %.300s\n", line)
		}
	}
}

func indent(text string) string {
	return "      " + strings.ReplaceAll(text, "\n", "\n      ")
}

// printTable prints all results and returns the exit code.
func printTable(rows []row) int {
	if len(rows) == 0 {
		return 0 // only built
	}
	fmt.Println()
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "RELEASE\tTRANSPORT\tPART\tRESULT\tTIME\tDETAIL")
	var failed error
	for _, r := range rows {
		detail := r.detail
		if r.err != nil {
			failed = errors.Join(failed, r.err)
			detail, _, _ = strings.Cut(r.err.Error(), "\n")
			detail = fmt.Sprintf("%.160s", detail)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%.1fs\t%s\n",
			r.version.release, r.transport, r.part, r.verdict(), r.took.Seconds(), detail)
	}
	table.Flush()
	if failed != nil {
		return 1
	}
	return 0
}

func envOr(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
