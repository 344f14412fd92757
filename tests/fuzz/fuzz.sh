#!/usr/bin/env bash
# Fuzzes one target, or all of them, for so many seconds each:
#
#     tests/fuzz/fuzz.sh TARGET|all SECONDS [libFuzzer's options]
#
# Needs clang and its runtime (Debian: clang and libclang-rt-NN-dev) beside Rust. AddressSanitizer is on where the toolchain has
# its runtime, as those of rustup do; `WEIR_ASAN=0` leaves it out and is twice as fast. An input that fails is written to
# target/fuzz/TARGET-crash-*: give it a name that says what it was, put it into tests/fuzz/corpus/TARGET/, and mend the bug.
# `malformed PACKETS` sends so many malformed packets through a worker in memory instead (tests/malformed.rs), in the same build.
# With `minimise` for SECONDS what was found is merged into the committed corpus instead, as few files as cover the same.
set -euo pipefail
cd "$(dirname "$0")/../.."
targets=${1:?TARGET, all or malformed} seconds=${2:?SECONDS, PACKETS or minimise}
shift 2
[ "$targets" = all ] && targets=$(ls tests/fuzz/corpus)

host=$(rustc -vV | sed -n 's/^host: //p')
runtime=$(clang -print-file-name="libclang_rt.fuzzer-${host%%-*}.a")
[ -f "$runtime" ] || { echo "fuzz.sh: clang has no libFuzzer: install libclang-rt-NN-dev of its version"; exit 2; }
# What libFuzzer goes by: a counter for each edge, and the operands of comparisons. Stable flags, all of them.
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
flags+=" -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
flags+=" -Clink-arg=$runtime -Clink-arg=-lstdc++ -Ccodegen-units=16"
if [ "${WEIR_ASAN:-1}" = 1 ] && ls "$(rustc --print sysroot)/lib/rustlib/$host/lib/"librustc-*_rt.asan.a >/dev/null 2>&1; then
    # The stable compiler has it, behind a flag that is not yet stable.
    export RUSTC_BOOTSTRAP=1
    flags+=" -Zsanitizer=address"
    directory=target/fuzz/asan
else
    directory=target/fuzz/plain
fi
directory=${WEIR_FUZZ_TARGET_DIR:-$directory}
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_odr_violation=0:detect_leaks=0}
# With --target, so that build scripts and macros are built without all that.
export CARGO_TARGET_DIR=$directory CARGO_ENCODED_RUSTFLAGS
CARGO_ENCODED_RUSTFLAGS=$(tr ' ' '\037' <<<"$flags" | tr -d '\n')
build=(--locked --profile checked --target "$host" -p weir-fuzz --features libfuzzer)
if [ "$targets" = malformed ]; then
    WEIR_PACKETS=$seconds cargo test "${build[@]}" --test malformed -- --nocapture
    exit
fi
cargo build "${build[@]}" --bin fuzz
fuzz=$directory/$host/checked/fuzz
for target in $targets; do
    corpus=tests/fuzz/corpus/$target found=target/fuzz/found/$target
    mkdir -p "$corpus" "$found"
    export WEIR_FUZZ=$target
    if [ "$seconds" = minimise ]; then
        "$fuzz" -merge=1 -verbosity=0 "$@" "$corpus" "$found"
    else
        echo "$target: $seconds s"
        "$fuzz" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -max_len=4096 -print_final_stats=1 -verbosity=0 \
            -artifact_prefix="target/fuzz/$target-" "$@" "$found" "$corpus"
    fi
done
