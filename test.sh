#!/usr/bin/env bash
# Runs the tests, after installing what they need beyond Rust: strace, which counts system calls.
# Arguments go to `cargo test`.
set -euo pipefail
cd "$(dirname "$0")"

if ! command -v strace >/dev/null; then
    sudo=""
    [ "$(id -u)" -eq 0 ] || sudo="sudo"
    $sudo apt-get update -q
    $sudo apt-get install -y -q --no-install-recommends strace
fi

exec cargo test --release --workspace "$@"
