#!/usr/bin/env bash
# Forwarders side by side on veth: the same flood through weir, and through what does less. README.md beside this tells what is
# run, and has the last table.
#
#     sudo benches/peers/veth.sh [--install] [--rounds 5] [--seconds 0.5] [--short | --long] [--only weir,testpmd]
#
# --install fetches what is missing of Debian's packages. Works in three network namespaces of its own, made anew for each
# measurement, and removes them at the end.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}

install=no rounds=5 seconds=0.5 lengths=(64 1500) only=
while [ $# -gt 0 ]; do
    case $1 in
        --install) install=yes ;;
        --rounds) rounds=$2; shift ;;
        --seconds) seconds=$2; shift ;;
        --short) lengths=(64) ;;
        --long) lengths=(1500) ;;
        --only) only=$2; shift ;;
        *) sed -n '5p' "$0"; exit 2 ;;
    esac
    shift
done
[ "$(id -u)" = 0 ] || { echo "needs root: it makes network namespaces, AF_XDP sockets and XDP programs" >&2; exit 1; }
[ "$(nproc)" -ge 2 ] || { echo "needs two cores: one sends, the other forwards" >&2; exit 1; }

# As in the veth bench.
flood_cpu=0 forwarder_cpu=1
# What has not forwarded anything by then does not run here. DPDK takes some 2 s to start.
start_within=15
warm_up=0.3

install_packages() {
    local wanted=(nftables dpdk dpdk-dev iproute2 ethtool) missing=() package
    for package in "${wanted[@]}"; do
        dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}
[ $install = no ] || install_packages
(cd "$root" && cargo build --quiet --release --locked -p weir-benches --example peer)
peer=$target/release/examples/peer

near=weir-peers-$$-near gateway=weir-peers-$$-gateway far=weir-peers-$$-far
logs=$(mktemp -d)
flood='' forwarder=''
take_down() {
    local process
    # Once: the shell unsets the sink's id as soon as that has ended.
    for process in $flood $forwarder ${SINK_PID:-}; do
        kill "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
    flood='' forwarder=''
    # The veth pairs go with their namespaces.
    ip netns del $near 2>/dev/null || true
    ip netns del $gateway 2>/dev/null || true
    ip netns del $far 2>/dev/null || true
}
clean_up() {
    # Whatever fails, the rest goes on.
    set +eu
    trap '' INT TERM
    take_down
    rm -rf "$logs"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# Not `ip netns exec`, which hides the BPF file system.
within() { nsenter --net="/run/netns/$1" "${@:2}"; }

# Forwarders in their order; by name: label, what it does, where, the sink's XDP mode, why it did not run.
names=()
declare -A label does where sink why
# add NAME LABEL DOES WHERE SINK
add() {
    names+=("$1")
    label[$1]=$2 does[$1]=$3 where[$1]=$4 sink[$1]=$5
}
add bare "bare AF_XDP" "nothing" "its own core" generic
add weir "weir" "classify, meter, mark, queue, schedule" "its own core" generic
add testpmd "DPDK testpmd io, net_af_xdp" "nothing" "its own core" generic
for core in own flood; do
    case $core in
        own) on="its own core" ;;
        flood) on="the flood's core" ;;
    esac
    add bridge-$core "kernel, bridge" "nothing" "$on" generic
    add nft-$core "kernel, bridge and nftables" "classify, meter, mark" "$on" generic
    add htb-$core "kernel, bridge and tc HTB" "classify, queue, shape" "$on" generic
    add xdp-$core "XDP program" "classify, meter, mark" "$on" native
done
if [ -n "$only" ]; then
    # Beside the yardstick.
    IFS=, read -ra names <<<"bare,$only"
    for name in "${names[@]}"; do
        [ -n "${label[$name]:-}" ] || { echo "no such forwarder: $name (${!label[*]})" >&2; exit 2; }
    done
fi
command -v dpdk-testpmd >/dev/null || why[testpmd]="not installed (--install)"
for core in own flood; do
    command -v nft >/dev/null || why[nft-$core]="not installed (--install)"
done
"$peer" contracts >"$logs/contracts"

# Interfaces and the addresses of the flood's packets: see benches/src/workload.rs.
make_links() {
    local name
    for name in $near $gateway $far; do
        ip netns add "$name"
    done
    ip link add flood netns $near numtxqueues 1 numrxqueues 1 type veth peer name site netns $gateway numtxqueues 1 numrxqueues 1
    ip link add wan netns $gateway numtxqueues 1 numrxqueues 1 type veth peer name sink netns $far numtxqueues 1 numrxqueues 1
    # No address, so that the kernel has nothing to say of its own.
    ip -n $near link set flood addrgenmode none up
    ip -n $gateway link set site addrgenmode none up
    ip -n $gateway link set wan addrgenmode none up
    ip -n $far link set sink addrgenmode none up
}

# The NAPI thread of `site` for its own, so that everything behind the flood is done on the forwarder's core.
give_site_a_core() {
    local before comm thread
    before=$(cat /proc/[0-9]*/comm 2>/dev/null | grep -c '^napi/site-' || true)
    [ "$before" = 0 ] || { echo "another interface \`site\` has a NAPI thread" >&2; return 1; }
    ip netns exec $gateway sh -c 'echo 1 >/sys/class/net/site/threaded'
    for comm in /proc/[0-9]*/comm; do
        if [[ $(cat "$comm" 2>/dev/null) == napi/site-* ]]; then
            thread=${comm#/proc/} thread=${thread%/comm}
            taskset -pc $forwarder_cpu "$thread" >/dev/null
            # It belongs to nobody's session: whatever priority this script was given, it has none of it.
            renice -n "$(nice)" -p "$thread" >/dev/null
            return
        fi
    done
    echo "no NAPI thread for \`site\`" >&2
    return 1
}

# Bridged, like weir's wire, not routed: the flood uses its frames again, and writes neither TTL nor MAC addresses anew.
make_bridge() {
    # One by one, because whoever asks whether this has worked turns `set -e` off in it.
    ip -n $gateway link add name wire type bridge &&
        ip -n $gateway link set wire addrgenmode none up &&
        ip -n $gateway link set site master wire &&
        ip -n $gateway link set wan master wire &&
        # Redirected frames reach a veth without a program only so.
        within $gateway ethtool -K site gro on &&
        within $gateway bridge fdb add 02:00:00:00:00:02 dev wan master static
}

# A chain for each contract, reached by one look-up. A limit counts what the kernel takes for the packet: the IP packet and 14.
make_nft() {
    awk '
        BEGIN { print "table bridge weir {" }
        {
            split($1, prefix, "/")
            rate = $4 >= 8000000 ? $4 / 8000000 " mbytes" : $4 / 8 " bytes"
            # Numbers as text: some awks know none of more than 31 bits as whole.
            printf "chain c%d { ip dscp != %s return; limit rate over %s/second burst %s bytes ip dscp set %s; }\n",
                NR, $2, rate, $5, $3
            elements = elements (NR > 1 ? ", " : "") prefix[1] " : goto c" NR
        }
        END {
            printf "map services { type ipv4_addr : verdict; elements = { %s } }\n", elements
            print "chain forward { type filter hook forward priority 0;"
            print "ip saddr & 255.255.255.0 vmap @services"
            print "}\n}"
        }' "$logs/contracts" >"$logs/nft"
    within $gateway nft -f "$logs/nft"
}

# A class for each contract with its rate, which may lend from the others; so excess passes here, too, unmarked. u32 finds it by a
# hash of the third byte of the source, with up to four filters behind it.
make_htb() {
    awk '
        BEGIN {
            print "qdisc add dev wan root handle 1: htb"
            print "class add dev wan parent 1: classid 1:1 htb rate 100gbit burst 1mb cburst 1mb quantum 1514"
            print "filter add dev wan parent 1: prio 1 handle 2: protocol ip u32 divisor 256"
        }
        {
            split($1, byte, ".")
            class = sprintf("1:%x", NR + 1)
            printf "class add dev wan parent 1:1 classid %s htb rate %sbit burst %s ceil 100gbit cburst 1mb quantum 1514\n",
                class, $4, $5
            printf "filter add dev wan parent 1: prio 1 protocol ip u32 ht 2:%x: match ip src %s flowid %s\n", byte[3], $1, class
        }
        END {
            print "filter add dev wan parent 1: prio 1 protocol ip u32 ht 800:: match ip src 10.0.0.0/8 hashkey mask 0x0000ff00 at 12 link 2:"
        }' "$logs/contracts" >"$logs/tc"
    within $gateway tc -batch "$logs/tc"
}

# start NAME: gets the gateway to forward
start() {
    local tries
    case $1 in
        bare) launch "$peer" forward bare $forwarder_cpu ;;
        weir) launch "$peer" forward weir $forwarder_cpu ;;
        testpmd)
            launch dpdk-testpmd -l $flood_cpu,$forwarder_cpu --main-lcore $flood_cpu --no-huge -m 256 --no-pci --no-shconf \
                --no-telemetry --vdev=net_af_xdp0,iface=site --vdev=net_af_xdp1,iface=wan -- --forward-mode=io --burst=64 \
                --total-num-mbufs=16384 --stats-period=1000
            ;;
        bridge-*) make_bridge || return ;;
        nft-*) make_bridge && make_nft || return ;;
        htb-*) make_bridge && make_htb || return ;;
        xdp-*) launch "$peer" forward xdp ;;
    esac
    case $1 in
        xdp-own)
            # A NAPI context is there from the moment the program is attached.
            for ((tries = 0; tries < 100; tries++)); do
                [[ $(ip -n $gateway link show site) != *xdp* ]] || break
                sleep 0.05
            done
            give_site_a_core
            ;;
        *-own) give_site_a_core ;;
    esac
}

launch() {
    timeout --kill-after=3 $((start_within + ${seconds%.*} + 15)) nsenter --net="/run/netns/$gateway" "$@" \
        >"$logs/says" 2>&1 </dev/null &
    forwarder=$!
}

# The sink's count, and CLOCK_MONOTONIC with it: `packets`, `now`.
ask() {
    echo >&"${SINK[1]}"
    read -r -t 10 packets now <&"${SINK[0]}"
}

# measure NAME BYTES: one window of it
measure() {
    local name=$1 bytes=$2 before since tries says
    make_links
    start "$name" >"$logs/start" 2>&1 || { give_up "$name" "$logs/start"; return; }
    [ "${sink[$name]}" = native ] || within $far ethtool -K sink gro on
    coproc SINK { exec nsenter --net="/run/netns/$far" "$peer" sink sink "${sink[$name]}"; }
    timeout --kill-after=3 $((start_within + ${seconds%.*} + 10)) nsenter --net="/run/netns/$near" \
        "$peer" flood flood $flood_cpu "$bytes" 2>"$logs/flood" &
    flood=$!
    for ((tries = 0; tries < start_within * 10; tries++)); do
        sleep 0.1
        ask
        ((packets < 10000)) || break
    done
    if ((packets < 10000)); then
        cat "$logs/flood" "$logs/says" >"$logs/all" 2>/dev/null || true
        give_up "$name" "$logs/all"
        return
    fi
    sleep $warm_up
    ask
    before=$packets since=$now
    sleep "$seconds"
    ask
    awk "BEGIN { print ($packets - $before) / ($now - $since) * 1e3 }" >>"$logs/$name.$bytes.mpps"
    take_down
    says=$(grep -o '.* excess' "$logs/says" 2>/dev/null || true)
    [ -z "$says" ] || excess[$name]=$says
    : >"$logs/says"
}
declare -A excess

# give_up NAME FILE: what it says
give_up() {
    local says=
    # Trims it, too.
    read -r says < <(grep -aim1 'fail\|error\|cannot' "$2" || tail -n 1 "$2") || true
    why[$1]="forwards nothing; says: ${says:-nothing}"
    take_down
}

# Median, smallest and largest of the numbers, one in a line.
summary() {
    sort -g | awk '{ v[NR] = $1 }
        END { low = int((NR + 1) / 2); printf "%.3f %.3f %.3f\n", (v[low] + v[NR + 1 - low]) / 2, v[1], v[NR] }'
}

print_table() {
    local bytes name median min max bare of_medians of_rounds
    echo "| frame | forwarder | does what | runs on | sink | Mpps median | min | max | ratio of medians | median of ratios |"
    echo "|---|---|---|---|---|---|---|---|---|---|"
    for bytes in "${lengths[@]}"; do
        read -r bare _ < <(summary <"$logs/bare.$bytes.mpps")
        for name in "${names[@]}"; do
            [ -s "$logs/$name.$bytes.mpps" ] || continue
            read -r median min max < <(summary <"$logs/$name.$bytes.mpps")
            of_medians=$(awk "BEGIN { printf \"%.3f\", $median / $bare }")
            read -r of_rounds _ < <(paste "$logs/$name.$bytes.mpps" "$logs/bare.$bytes.mpps" | awk 'NF == 2 { print $1 / $2 }' | summary)
            echo "| $bytes B | ${label[$name]} | ${does[$name]} | ${where[$name]} | ${sink[$name]} | $median | $min | $max | $of_medians | $of_rounds |"
        done
    done
    echo
    for name in "${names[@]}"; do
        [ -z "${excess[$name]:-}" ] || echo "${label[$name]}, ${where[$name]}: ${excess[$name]}"
        [ -z "${why[$name]:-}" ] || echo "Did not run here: ${label[$name]}, ${where[$name]}: ${why[$name]}"
    done
}

mapfile -t machine < <("$peer" machine)
load=$(cut -d' ' -f1-3 /proc/loadavg)
for bytes in "${lengths[@]}"; do
    for ((round = 0; round < rounds; round++)); do
        for ((at = 0; at < ${#names[@]}; at++)); do
            name=${names[$(((round + at) % ${#names[@]}))]}
            [ -n "${why[$name]:-}" ] || measure "$name" "$bytes"
        done
        echo "$bytes B: round $((round + 1)) of $rounds" >&2
    done
done
mapfile -t after < <("$peer" machine)

echo "$(date -u +%F), ${machine[0]}; $(wc -l <"$logs/contracts") contracts, 4,096 flows"
echo "$rounds rounds of $seconds s each, interleaved; empty system call ${machine[1]} ns before, ${after[1]} ns after;" \
    "load average before: $load"
echo
print_table
