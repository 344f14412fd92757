#!/usr/bin/env bash
# How many instructions weir spends on a packet, stage by stage, counted by valgrind: the same on a noisy machine as on a quiet
# one. Compares with benches/instructions.txt, and fails if a row has grown by more than 3 %.
#
#     benches/peers/instructions.sh [--install] [--update]
#
# --update writes the table instead. No root but for --install. Counted is user space alone; what a cache miss or a locked
# instruction costs does not show here: benches/peers/memory.sh measures time.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
table=$root/benches/instructions.txt
allowed_percent=3
install=no update=no
while [ $# -gt 0 ]; do
    case $1 in
        --install) install=yes ;;
        --update) update=yes ;;
        *) sed -n '5p' "$0"; exit 2 ;;
    esac
    shift
done

if [ $install = yes ] && ! dpkg -s valgrind jq >/dev/null 2>&1; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends valgrind jq >/dev/null
fi
for tool in valgrind jq; do
    command -v $tool >/dev/null || { echo "needs $tool (--install)" >&2; exit 1; }
done

# Their paths carry a hash that changes with what they are made of.
executables=$(cd "$root" && cargo bench --quiet --locked -p weir-benches --bench meters --bench pipeline --no-run \
    --message-format=json | jq -r 'select(.reason == "compiler-artifact" and .target.kind == ["bench"]) | .executable')

# BENCH ROW PASSES: a pass of the pipeline is 2,048 or 4,096 packets, one of the meters some million checks.
rows=(
    "pipeline|whole worker, parse to schedule|8"
    "pipeline|whole worker, a new table every 2,048 packets|8"
    "pipeline|parse|8"
    "pipeline|classify, flow known|8"
    "pipeline|classify, flow new|8"
    "pipeline|meter|8"
    "pipeline|mark (every packet changed)|8"
    "pipeline|enqueue and schedule|8"
    "meters|token bucket, 1 hot|1"
    "meters|RFC 2698, 1 hot|1"
    "meters|RFC 2697, 1 hot|1"
    "meters|RFC 4115, 1 hot|1"
)

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
trap 'exit 130' INT TERM

# count BENCH ROW PASSES: instructions for each packet, within the function `counted` alone
count() {
    local bench
    bench=$(grep "/$1-" <<<"$executables")
    timeout --kill-after=3 300 valgrind --tool=callgrind --callgrind-out-file=/dev/null \
        --toggle-collect="$1::counted*" "$bench" --count "$2" "$3" >"$logs/packets" 2>"$logs/valgrind" ||
        { cat "$logs/valgrind" >&2; return 1; }
    awk -v row="$2" '$2 == "packets" { packets = $1 } $2 == "Collected" { instructions = $4 }
        END {
            if (!(packets > 0 && instructions > 0)) { print "no such row, or nothing counted: " row > "/dev/stderr"; exit 1 }
            printf "%.1f", instructions / packets
        }' "$logs/packets" "$logs/valgrind"
}

for entry in "${rows[@]}"; do
    IFS='|' read -r bench row passes <<<"$entry"
    instructions=$(count "$bench" "$row" "$passes")
    printf '%8.1f  %s: %s\n' "$instructions" "$bench" "$row" >>"$logs/now"
    echo "$row" >&2
done
{
    echo "# Instructions for each packet; benches/peers/instructions.sh wrote this and compares with it."
    echo "# $(rustc --version), $(uname -m), $(valgrind --version)"
    cat "$logs/now"
} >"$logs/table"

if [ $update = yes ]; then
    cp "$logs/table" "$table"
    cat "$table"
    exit
fi
# The rows of both, by name.
awk -v allowed=$allowed_percent '
    { name = $0; sub(/^ *[0-9.]+  /, "", name) }
    /^#/ { next }
    NR == FNR { before[name] = $1; next }
    !(name in before) { printf "%8.1f  %s  (not in the table)\n", $1, name; grown = 1; next }
    {
        percent = ($1 / before[name] - 1) * 100
        too_much = percent > allowed
        printf "%8.1f  %s  (%.1f in the table, %+.1f %%)%s\n", $1, name, before[name], percent, too_much ? "  GROWN" : ""
        grown = grown || too_much
    }
    END { exit grown }' "$table" "$logs/table" ||
    { echo "more than $allowed_percent % more instructions in a row, or a row without a table entry: if it has to be, --update" >&2; exit 1; }
