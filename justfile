# What there is to run. `just verify` never writes, `just fix` does.

# This list.
default:
    @just --list --unsorted

# A signer and a mock validator with an embedded set-up.
demo *ARGS:
    cargo run --release -- demo {{ARGS}}

# All tests; installs what they need.
test *ARGS:
    ./test.sh {{ARGS}}

# All that can be checked without writing: format, lints, tests.
verify:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets -- -D warnings
    ./test.sh

# Formats and applies what clippy suggests.
fix:
    cargo clippy --release --workspace --all-targets --fix --allow-dirty --allow-staged
    cargo fmt --all

# Benches: `just bench sign` measures a signature end to end, with its floor; `just bench hsm` what is added to a device's; `just bench threshold` one of a group, beside Horcrux if `HORCRUX_BIN` names it; `just bench sim` how fast simulated worlds run.
bench NAME *ARGS:
    {{ if NAME == "sim" { "cd scenarios && cargo run --release -- bench " + ARGS } else { "cargo build --release && cargo run --release -p monosign-benches --bin " + NAME + " -- " + ARGS } }}

# Runs scenarios in the simulated world: by name or file, or all there are; `just scenarios list` shows them. `just scenarios --help` says more.
scenarios *ARGS: (_scenarios (if ARGS == "list" { "" } else { "run" }) ARGS)

# Runs a saved failure again, event for event.
replay FILE: (_scenarios "replay" FILE)

# Makes up scenarios at random; what fails is shrunk and saved under scenarios/regressions.
explore *ARGS: (_scenarios "explore" ARGS)

# A crash at every single point of input and output of a fixed piece of work.
sweep *ARGS: (_scenarios "sweep" ARGS)

# Each seed in two processes: what happens must be the same, down to the packets.
determinism *ARGS: (_scenarios "determinism" ARGS)

# The simulator as CI runs it.
simulate:
    scenarios/ci

# Built inside scenarios/, whose settings it needs, and run where the user is, so that relative paths mean what they say.
_scenarios COMMAND *ARGS:
    cd scenarios && cargo build --release
    cd {{quote(invocation_directory())}} && {{quote(justfile_directory() / "target/scenarios/release/scenarios")}} {{COMMAND}} {{ARGS}}

# Real CometBFT nodes and clients of every release, or of those named.
interop *VERSIONS:
    cargo build --release
    interop/run {{VERSIONS}}

# What every validator wants of its signer, tried on monosign for every release, or for those named; pages in target/reports.
conform *DIALECTS:
    cargo build --release -p monosign -p mock-validator
    mock-validator/conform/monosign {{DIALECTS}}

# The same on a group of cosigners, asked of each of them in turn.
conform-threshold *DIALECTS:
    cargo build --release -p monosign -p mock-validator
    mock-validator/conform/threshold {{DIALECTS}}

# The same with the key on a device: `yubihsm`, the mock behind a connector's HTTP, or `pkcs11`, SoftHSM 2.
conform-device DEVICE *DIALECTS:
    cargo build --release -p monosign -p mock-validator -p mock-yubihsm
    mock-validator/conform/{{DEVICE}} {{DIALECTS}}

# The same on other signers, which are installed for it, side by side with monosign.
conform-peers DIALECT="v0.38":
    cargo build --release -p monosign -p mock-validator
    mock-validator/conform/peers {{DIALECT}}

# The same on CometBFT's own signer, which has to fail what it is known to get wrong, and nothing else.
conform-reference *VERSIONS:
    cargo build --release -p mock-validator
    interop/conform {{VERSIONS}}

# Plants mistakes in a copy of the tree, one after the other, and sees that the simulator catches each.
planted *ARGS:
    cd scenarios && cargo run --release -- planted {{ARGS}}

# Has groups of cosigners make signatures, and verifies each by every rule that a verifier may have.
signatures COUNT="100000":
    MONOSIGN_SIGNATURES={{COUNT}} cargo test --release -p monosign --lib signatures_of_random_sets -- --nocapture

# Fuzzes a target on stable Rust.
fuzz TARGET SECONDS="60":
    fuzz/run {{TARGET}} {{SECONDS}}

# Licences, sources and duplicate versions of dependencies.
deny:
    cargo deny --all-features check bans licenses sources
