package suite

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// Report is the outcome of one run.
type Report struct {
	Release string  `json:"release"`
	Address string  `json:"address"`
	Passed  int     `json:"passed"`
	Failed  int     `json:"failed"`
	Skipped int     `json:"skipped"`
	Checks  []Check `json:"checks"`
	// Signatures counts the verified ones; P50 and P99 are the node's wait for one without an extension, in µs.
	Signatures int   `json:"signatures"`
	P50        int64 `json:"p50_us"`
	P99        int64 `json:"p99_us"`
	// DropMillis and RestartMillis are the longest times until the signer answers again.
	DropMillis    float64 `json:"drop_ms"`
	RestartMillis float64 `json:"restart_ms"`

	latencies []time.Duration
}

// Check is one expectation.
type Check struct {
	Name   string `json:"name"`
	Result string `json:"result"`
	Detail string `json:"detail,omitempty"`
}

// Results of a [Check].
const (
	Pass = "pass"
	Fail = "FAIL"
	Skip = "skip"
)

func (r *Report) add(name, result, detail string) {
	switch result {
	case Pass:
		r.Passed++
	case Fail:
		r.Failed++
	case Skip:
		r.Skipped++
	}
	r.Checks = append(r.Checks, Check{Name: name, Result: result, Detail: detail})
}

// record adds a check that passes unless err says why not.
func (r *Report) record(name, detail string, err error) {
	if err != nil {
		r.add(name, Fail, err.Error())
		return
	}
	r.add(name, Pass, detail)
}

func (r *Report) finish() {
	if len(r.latencies) == 0 {
		return
	}
	slices.Sort(r.latencies)
	r.P50 = r.latencies[len(r.latencies)/2].Microseconds()
	r.P99 = r.latencies[len(r.latencies)*99/100].Microseconds()
}

func (r *Report) print(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, check := range r.Checks {
		fmt.Fprintf(table, "%s\t%s\t%s\n", check.Result, check.Name, check.Detail)
	}
	table.Flush()
	fmt.Fprintf(w, "\n%s over %s: %d passed, %d failed, %d skipped; %d signatures verified, p50 %d µs, p99 %d µs; back after a drop in %.1f ms, after a listener restart in %.1f ms\n",
		r.Release, r.Address, r.Passed, r.Failed, r.Skipped, r.Signatures, r.P50, r.P99, r.DropMillis, r.RestartMillis)
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
