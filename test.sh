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

exec cargo test --release --workspace "$@"
