#!/usr/bin/env bash
# Every check there is, in the order of how fast it fails. Run as root: without it the tests that need sockets and network
# namespaces are skipped, loudly. Debian packages it needs: see .ci/run.
set -euo pipefail
cd "$(dirname "$0")"
step() { printf '\n== %s\n' "$1"; }

step "format"
cargo fmt --all --check

step "XDP objects are what their sources compile to"
for source in $(git ls-files '*.bpf.c'); do
    dir=$(dirname "$source")
    built=$(mktemp)
    "$dir/build.sh" "$built"
    cmp "$built" "${source%.c}.o" || { echo "$source: rebuild its object with $dir/build.sh and check it in"; exit 1; }
    rm -f "$built"
done

step "licences of all dependencies"
cargo metadata --format-version 1 --locked | python3 tests/licences.py

step "clippy"
cargo clippy --workspace --all-targets --locked -- -D warnings

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

step "tests"
cargo test --workspace --exclude weir-tests --locked
# Gateways, hosts and clients share the machine's cores in these, and some of them count milliseconds: a repeat tells a busy
# machine from a broken weir.
cargo test -p weir-tests --locked || { echo "once more, on a machine that may have been busy:"; cargo test -p weir-tests --locked; }

step "model checks (loom)"
RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test --release --locked -p af_xdp --lib loom
RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test --release --locked -p weir-dataplane --lib loom

step "fuzzing"
# Twenty seconds each find what a change has just broken; the corpus has been through the targets in the tests.
if command -v clang >/dev/null && [ -f "$(clang -print-file-name=libclang_rt.fuzzer-"$(uname -m)".a)" ]; then
    tests/fuzz/fuzz.sh all 20
else
    echo "SKIPPED (needs clang and libclang-rt-NN-dev): tests/fuzz/fuzz.sh"
fi

step "demo and bench"
cargo build --release --locked
if [ "$(id -u)" = 0 ]; then
    target/release/weir demo --json > target/demo.json || target/release/weir demo --json > target/demo.json
    echo "demo passed: target/demo.json"
    # On a machine that shares its cores a search may stay partial; the report must be there.
    rm -f target/weir-bench.html
    target/release/weir bench --frames 64 --seconds 0.5 --report target/weir-bench.html || test -s target/weir-bench.html
else
    echo "SKIPPED (needs root): weir demo, weir bench"
fi

step "Debian package"
if [ "$(id -u)" = 0 ] && command -v cargo-deb >/dev/null; then
    deb=$(packaging/build-deb.sh | tail -1)
    packaging/test-deb.sh "$deb"
    packaging/test-unit.sh "$deb"
else
    echo "SKIPPED (needs root and cargo-deb): packaging/test-deb.sh"
fi

step "benchmarks run"
cargo bench --locked -p weir-benches --bench pipeline -- --quick
cargo bench --locked -p weir-benches --bench generate -- --quick
cargo bench --locked -p weir-benches --bench scaling -- --quick
# Fails when a swap of tables loses or reorders a packet.
cargo bench --locked -p weir-benches --bench swaps -- --quick
echo
echo "all checks passed"
