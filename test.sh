#!/usr/bin/env bash
# Runs the tests, after installing what they need beyond Rust: strace, which counts system calls, and SoftHSM 2, a PKCS#11
# token in software.
# Arguments go to `cargo test`.
set -euo pipefail
cd "$(dirname "$0")"

missing=()
command -v strace >/dev/null || missing+=(strace)
command -v softhsm2-util >/dev/null || missing+=(softhsm2)
if [ ${#missing[@]} -gt 0 ]; then
    sudo=""
    [ "$(id -u)" -eq 0 ] || sudo="sudo"
    $sudo apt-get update -q
    $sudo apt-get install -y -q --no-install-recommends "${missing[@]}"
fi

echo "On two cores with nothing built yet: up to 12 minutes to build and about 7 to test. Crate by crate and test by test, what is done is shown."
exec cargo test --release --workspace "$@"
