#!/usr/bin/env bash
# weir's meters and pipeline beside DPDK's, in memory, on one core: what a check and a packet cost. README.md beside this tells
# what is run, and has the last table.
#
#     benches/peers/memory.sh [--install] [--rounds 5] [--full]
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
install=no rounds=5 effort=--quick
while [ $# -gt 0 ]; do
    case $1 in
        --install) install=yes ;;
        --rounds) rounds=$2; shift ;;
        --full) effort= ;;
        *) sed -n '5p' "$0"; exit 2 ;;
    esac
    shift
done

# The first core has the interrupts.
cpu=1

install_packages() {
    local wanted=(gcc libc6-dev libdpdk-dev pkgconf jq) missing=() package
    for package in "${wanted[@]}"; do
        dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}
[ $install = no ] || install_packages
for tool in cc pkg-config jq; do
    command -v $tool >/dev/null || { echo "needs $tool (--install)" >&2; exit 1; }
done
pkg-config --exists libdpdk || { echo "needs libdpdk-dev (--install)" >&2; exit 1; }
[ "$(nproc)" -gt $cpu ] || { echo "needs two cores: one is measured, and two where threads share a meter" >&2; exit 1; }

mkdir -p "$target/peers"
# DPDK's headers warn; and its flags ask for an older processor than this one.
flags=$(pkg-config --cflags libdpdk | sed 's,-I,-isystem ,g')
for program in meters pipeline; do
    # shellcheck disable=SC2086 # Several words each.
    cc -O3 -Wall -Wextra -Werror $flags -march=native -o "$target/peers/dpdk-$program" "$here/dpdk/$program.c" \
        -lrte_sched -lrte_hash -lrte_meter -lrte_mbuf -lrte_mempool -lrte_eal
done
# Their paths carry a hash that changes with what they are made of.
executables=$(cd "$root" && cargo bench --quiet --locked -p weir-benches --bench meters --bench pipeline --no-run \
    --message-format=json | jq -r 'select(.reason == "compiler-artifact" and .target.kind == ["bench"]) | .executable')
weir_meters=$(grep /meters- <<<"$executables")
weir_pipeline=$(grep /pipeline- <<<"$executables")

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
trap 'exit 130' INT TERM

programs=(dpdk-meters weir-meters dpdk-pipeline weir-pipeline)
# run PROGRAM ROUND: its figures go to a file of that name
run() {
    local command
    case $1 in
        dpdk-*) command=("$target/peers/$1") ;;
        weir-meters) command=("$weir_meters" --json) ;;
        weir-pipeline) command=("$weir_pipeline" --json) ;;
    esac
    # Long enough for any machine: the longest takes some seconds.
    # shellcheck disable=SC2086 # Nothing where it is empty.
    timeout --kill-after=3 300 taskset -c $cpu "${command[@]}" $effort >"$logs/$1.$2" 2>"$logs/says" ||
        { echo "$1 has failed:" >&2; cat "$logs/says" >&2; exit 1; }
}

# values PROGRAM ROW: its median in each round
values() {
    local round
    for ((round = 0; round < rounds; round++)); do
        jq -r --arg row "$2" '(if .rows then .rows[] else . end) | select(.name == $row) | (.ns_per_packet // .ns).median' \
            "$logs/$1.$round"
    done
}

# Median of the numbers, one in a line; of an even count the mean of the two in the middle.
median() {
    sort -g | awk '{ v[NR] = $1 } END { low = int((NR + 1) / 2); printf "%.2f\n", (v[low] + v[NR + 1 - low]) / 2 }'
}

# compare LABEL PROGRAM WEIR-ROW DPDK-ROW ASKED; PROGRAM: meters or pipeline
compare() {
    local ours theirs of_medians of_rounds
    ours=$(values "weir-$2" "$3" | median)
    theirs=$(values "dpdk-$2" "$4" | median)
    of_medians=$(awk "BEGIN { printf \"%.2f\", $ours / $theirs }")
    of_rounds=$(paste <(values "weir-$2" "$3") <(values "dpdk-$2" "$4") | awk '{ print $1 / $2 }' | median)
    echo "| $1 | $ours | $theirs | $of_medians | $of_rounds | $5 |"
}

print_table() {
    local kind
    echo "| ns, one core | weir | DPDK | ratio of medians | median of ratios | asked |"
    echo "|---|---|---|---|---|---|"
    for kind in 2698 2697 4115; do
        compare "check, RFC $kind, 1 hot" meters "RFC $kind, 1 hot" "RFC $kind, 1 hot" "$([ $kind = 2698 ] && echo "1.0" || echo -)"
    done
    compare "check, RFC 2698, 1 hot, a new time for each" meters "RFC 2698, 1 hot, a new time for each" \
        "RFC 2698, 1 hot, a new time for each" -
    compare "check, token bucket beside RFC 2698, 1 hot" meters "token bucket, 1 hot" "RFC 2698, 1 hot" "1.0"
    for kind in 2698 2697 4115; do
        compare "check, RFC $kind, 10,000 at random, batches with prefetch" meters "RFC $kind, 10000, prefetch" \
            "RFC $kind, 10000, prefetch" -
        compare "check, RFC $kind, 1,000,000 at random, batches with prefetch" meters "RFC $kind, 1000000, prefetch" \
            "RFC $kind, 1000000, prefetch" "$([ $kind = 2698 ] && echo "0.7" || echo -)"
    done
    compare "same, DPDK's without prefetch" meters "RFC 2698, 1000000, prefetch" "RFC 2698, 1000000" -
    compare "same, DPDK's with one profile for all" meters "RFC 2698, 1000000, prefetch" \
        "RFC 2698, 1000000, prefetch, one profile" -
    compare "check, token bucket beside RFC 2698, 1,000,000" meters "token bucket, 1000000, prefetch" \
        "RFC 2698, 1000000, prefetch" "0.7"
    compare "pipeline, rte_hash on the flow" pipeline "whole worker, parse to schedule" "whole, rte_hash on the flow" "0.4"
    compare "pipeline, rte_hash on service and class" pipeline "whole worker, parse to schedule" \
        "whole, rte_hash on service and class" "0.4"
    compare "pipeline, DPDK without rte_sched" pipeline "whole worker, parse to schedule" \
        "whole without rte_sched, on the flow" -
    compare "  parse" pipeline "parse" "parse" -
    compare "  classify, flow known" pipeline "classify, flow known" "look up, 4096 flows" -
    compare "  classify, flow new" pipeline "classify, flow new" "look up, 1000 services" -
    compare "  meter" pipeline "meter" "meter" -
    compare "  mark, every packet changed" pipeline "mark (every packet changed)" "mark, every packet changed" -
    compare "  queue and schedule" pipeline "enqueue and schedule" "rte_sched enqueue and dequeue" -
}

print_two_threads() {
    echo "| millions of checks a second | one thread | two threads | ratio | asked | packets that conform |"
    echo "|---|---|---|---|---|---|"
    # shellcheck disable=SC2016 # jq's own variables.
    jq -rs 'def median: sort | (.[(length - 1) / 2 | floor] + .[length / 2 | floor]) / 2;
        def show: . * 100 | round / 100;
        [.[].two_threads[]] | group_by(.name)[] | [.[0].name,
            ([.[].one_thread_mops.median] | median | show), ([.[].two_threads_mops.median] | median | show),
            ([.[].ratio.median] | median | show),
            (if .[0].name | startswith("weir, one for both") then "1.7" else "-" end),
            "\([.[].conforming_share] | median * 100 | round) %"]
        | "| \(join(" | ")) |"' "$logs"/weir-meters.*
}

syscalls() { jq -rs '[.[].empty_syscall_ns[]] | "\(min | round) to \(max | round) ns"' "$logs"/weir-*; }

load=$(cut -d' ' -f1-3 /proc/loadavg)
for ((round = 0; round < rounds; round++)); do
    # Each round begins with another one.
    for ((at = 0; at < ${#programs[@]}; at++)); do
        run "${programs[$(((round + at) % ${#programs[@]}))]}" $round
    done
    echo "round $((round + 1)) of $rounds" >&2
done

processor=$(sed -n '/^model name/{s/.*: //p;q}' /proc/cpuinfo)
echo "$(date -u +%F), $processor, $(nproc) cores, Linux $(uname -r); DPDK $(pkg-config --modversion libdpdk)"
echo "$rounds rounds, interleaved; empty system call $(syscalls); load average before: $load"
echo
print_table
echo
print_two_threads
