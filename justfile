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

# Benches: `just bench sign` measures a signature end to end, with its floor.
bench NAME *ARGS:
    cargo build --release
    cargo run --release -p monosign-benches --bin {{NAME}} -- {{ARGS}}

# Real CometBFT nodes and clients of every release, or of those named.
interop *VERSIONS:
    cargo build --release
    interop/run {{VERSIONS}}

# Fuzzes a target on stable Rust.
fuzz TARGET SECONDS="60":
    fuzz/run {{TARGET}} {{SECONDS}}

# Licences, sources and duplicate versions of dependencies.
deny:
    cargo deny --all-features check bans licenses sources
