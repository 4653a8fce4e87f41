//! Histograms and how they are printed.

use std::fs;

use hdrhistogram::Histogram;

use crate::setup::Setup;

/// Times in nanoseconds.
pub(crate) type Nanos = Histogram<u64>;

/// The times of each kind of request.
pub(crate) struct Latencies {
    pub(crate) prevote: Nanos,
    pub(crate) proposal: Nanos,
    pub(crate) precommit: Nanos,
    pub(crate) precommit_extended: Nanos,
}

/// An empty histogram, exact to three digits.
#[allow(clippy::expect_used, reason = "3 digits are within the crate's bounds of 0 to 5")]
pub(crate) fn nanos() -> Nanos {
    Nanos::new(3).expect("3 significant digits are allowed")
}

pub(crate) fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

pub(crate) fn print_row(name: &str, times: &Nanos) {
    if times.is_empty() {
        return;
    }
    let at = |quantile| micros(times.value_at_quantile(quantile));
    println!(
        "  {name:<36} n {:>6}  p50 {:>8.1}  p90 {:>8.1}  p99 {:>8.1}  p99.9 {:>8.1}  max {:>9.1} us",
        times.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        micros(times.max()),
    );
}

/// Says where the run happens, since the numbers mean nothing elsewhere.
pub(crate) fn machine(setup: &Setup) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism()?;
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split_whitespace().next().unwrap_or("?").to_owned();
    println!("{cores} cores, load average {load}, files in {}", setup.path("").display());
    Ok(())
}

impl Default for Latencies {
    fn default() -> Self {
        Self { prevote: nanos(), proposal: nanos(), precommit: nanos(), precommit_extended: nanos() }
    }
}

impl Latencies {
    pub(crate) fn print(&self) {
        print_row("prevote", &self.prevote);
        print_row("proposal", &self.proposal);
        print_row("precommit, no extension", &self.precommit);
        print_row("precommit, 4 KiB extension", &self.precommit_extended);
    }

    /// How much longer the median precommit with an extension takes, if there were any.
    pub(crate) fn extension_ratio(&self) -> Option<f64> {
        let p50 = |times: &Nanos| times.value_at_quantile(0.5) as f64;
        (!self.precommit_extended.is_empty()).then(|| p50(&self.precommit_extended) / p50(&self.precommit))
    }
}
