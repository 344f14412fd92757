#!/usr/bin/env bash
# What daily operation costs: plan, apply, a scrape, and a screen, on a real gateway over veth under load. One table.
#
#     benches/operation.sh [--rounds N]
#
# Root; python3, curl and script(1). Works in a network and mount namespace of its own, and ends what it started. Two cores at least:
# the worker has the last one, generator and everything else the first.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
rounds=7
while [ $# -gt 0 ]; do
    case $1 in
        --rounds) rounds=$2; shift ;;
        *) sed -n '4p' "$0"; exit 2 ;;
    esac
    shift
done
if [ -z "${WEIR_OPERATION_INSIDE:-}" ]; then
    [ "$(id -u)" = 0 ] || { echo "needs root" >&2; exit 1; }
    (cd "$root" && cargo build --release --locked --quiet -p weir -p pktgen)
    WEIR_OPERATION_INSIDE=1 exec unshare --net --mount --propagation private "$0" --rounds "$rounds"
fi

mount -t tmpfs -o size=512m weir-operation /run
work=/run/work
mkdir $work
weir=${CARGO_TARGET_DIR:-$root/target}/release/weir
pktgen=${CARGO_TARGET_DIR:-$root/target}/release/pktgen
last=$(($(nproc) - 1))
gateway=
generator=
finish() {
    for process in $generator $gateway; do kill "$process" 2>/dev/null || true; done
    wait 2>/dev/null || true
}
trap finish EXIT
trap 'exit 130' INT TERM

ip link set lo up
ip link add site type veth peer name lan
ip link add wan type veth peer name uplink
for link in site lan wan uplink; do
    ip link set $link up mtu 1500
    sysctl -qw "net.ipv6.conf.$link.disable_ipv6=1"
done

# configure CONTRACTS RATE: one service, prefix and contract each
configure() {
    python3 - "$work" "$1" "$2" "$last" <<'PYTHON'
import pathlib, sys
work, count, rate, cpu = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
(work / "contracts.d").mkdir(exist_ok=True)
(work / "weir.toml").write_text(f'''region = "here"
[control]
state = "{work}/state"
[workers]
cpus = [{cpu}]
poll = "busy"
[[port]]
name = "lan"
interface = "lan"
side = "site"
[[port]]
name = "uplink"
interface = "uplink"
side = "wan"
[[wire]]
ports = ["lan", "uplink"]
[[class]]
name = "gold"
priority = 1
dscp = [46]
nonconforming_dscp = 3
[[class]]
name = "bronze"
priority = 2
default = true
nonconforming_dscp = 1
''')
with open(work / "contracts.d" / "all.toml", "w") as out:
    for n in range(count):
        out.write(f'''[[service]]
name = "service-{n}"
endpoints = ["10.{n >> 14}.{n >> 6 & 255}.{(n & 63) * 4}/30"]
[[contract]]
service = "service-{n}"
class = "bronze"
region = "here"
direction = "egress"
rate = "{rate if n < 10 else "2 Mbit/s"}"
slo = "99.9 %"
from = 2020-01-01
until = 2120-01-01
''')
PYTHON
}

# start: the gateway, until it answers
start() {
    "$weir" run --config $work/weir.toml --socket $work/control.sock >$work/log 2>&1 &
    gateway=$!
    for _ in $(seq 300); do
        "$weir" status --socket $work/control.sock >/dev/null 2>&1 && return
        sleep 0.1
    done
    cat $work/log >&2
    exit 1
}
stop() { kill "$gateway"; wait "$gateway" || true; gateway=; }

# seconds COMMAND...: wall time of each of the rounds, a line each. `weir plan` says 3 when there are changes.
seconds() {
    for _ in $(seq "$rounds"); do
        local begin end
        begin=$(date +%s.%N)
        "$@" >$work/said 2>&1 || [ $? = 3 ] || { cat $work/said >&2; return 1; }
        end=$(date +%s.%N)
        awk "BEGIN { print $end - $begin }"
    done
}
# row NAME HELD-TO: median and worst of the lines read
row() {
    sort -g | awk -v name="$1" -v held="$2" '{ v[NR] = $1 }
        END { printf "%-58s%12.3f%12.3f  %s\n", name, v[int((NR + 1) / 2)], v[NR], held }'
}
scrape() { curl -sf --max-time 60 -o $work/scrape --unix-socket $work/api.sock http://weir/metrics; }
printf '%-58s%12s%12s  %s\n' "" "median" "worst" "held to"
configure 1000 "2 Mbit/s"
start
for round in $(seq "$rounds"); do
    configure 1000 "$((round + 10)) Mbit/s"
    rounds=1 seconds "$weir" apply --socket $work/control.sock
done | row "apply 1,000 contracts, live on every worker, s" "0.1"
script -qefc "stty rows 24 cols 80; timeout --foreground 20 $weir top --socket $work/control.sock" /dev/null >/dev/null 2>&1 &
screen=$!
sleep 1
inner=$(pgrep -P "$(pgrep -P $screen timeout || pgrep -P "$(pgrep -P $screen | head -1)" timeout)" weir || true)
ticks() { awk '{ print $14 + $15 }' "/proc/$inner/stat"; }
if [ -n "$inner" ]; then
    before=$(ticks)
    sleep 15
    after=$(ticks)
    awk "BEGIN { print ($after - $before) / $(getconf CLK_TCK) / 15 * 100 }" | row "top, 1,000 contracts, percent of a core" "2"
fi
wait $screen || true
stop

configure 100000 "2 Mbit/s"
start
configure 100000 "3 Mbit/s"
seconds "$weir" plan --config $work/weir.toml --socket $work/control.sock | row "plan, 100,000 contracts, ten of them changed, s" "3"
seconds scrape | row "scrape, 100,000 contracts, s" "0.5"
grep -c '^weir_contract_offered_packets' $work/scrape | awk '{ print "  contracts in the scrape: " $1 }'
seconds "$weir" status --json --socket $work/control.sock | row "status --json, 100,000 contracts, s" "2"

# What is forwarded in windows with and without scrapes in turns. At a rate that the generator keeps while it shares its core with
# the scrapes: on two cores its own limit would be what is measured.
"$pktgen" run --tx site --rx wan --tx-cpus 0 --rx-cpu 0 --rate 100kpps --seconds $((rounds * 8 + 6)) --flows 4096 \
    --source 10.0.0.0/16 --json >$work/generated 2>&1 &
generator=$!
sleep 3
count() {
    curl -sf --unix-socket $work/api.sock http://weir/api/v1/status |
        python3 -c 'import json, sys, time; s = json.load(sys.stdin); print(sum(q["forwarded"]["packets"] for q in s["ledger"]), time.monotonic())'
}
# window SCRAPES: packets a second over three seconds
window() {
    local before after
    before=$(count)
    for _ in 1 2 3; do
        if [ "$1" = 1 ]; then scrape; fi
        sleep 1
    done
    after=$(count)
    echo "$before $after" | awk '{ print ($3 - $1) / ($4 - $2) }'
}
for _ in $(seq "$rounds"); do
    without=$(window 0)
    with=$(window 1)
    awk "BEGIN { print $with / $without }"
done | row "forwarded with a scrape a second, of that without, 100 kpps" "0.99"
wait $generator || true
generator=
