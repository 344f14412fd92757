#!/usr/bin/env bash
# Packet generators side by side: how many 64-byte frames a second each gets through one core into a veth whose other end
# counts and drops them in XDP. README.md beside this tells what is run, and has the last table.
#
#     sudo benches/peers/generators.sh [--install] [--rounds 5] [--seconds 2] [--sink native|generic]
#
# --install fetches what is missing: Debian packages, and xdp-tools of Debian unstable, unpacked under target/ only, where
# the release's own has no AF_XDP mode. Works in two network namespaces of its own and removes them at the end.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
unpacked=$target/peers/xdp-tools

install=no rounds=5 seconds=2 sink=native
while [ $# -gt 0 ]; do
    case $1 in
        --install) install=yes ;;
        --rounds) rounds=$2; shift ;;
        --seconds) seconds=$2; shift ;;
        --sink) sink=$2; shift ;;
        *) sed -n '5p' "$0"; exit 2 ;;
    esac
    shift
done
[ "$(id -u)" = 0 ] || { echo "needs root: it makes network namespaces, AF_XDP sockets and XDP programs" >&2; exit 1; }
[ "$(nproc)" -ge 2 ] || { echo "needs two cores: one sends, the other counts" >&2; exit 1; }

# Where every sender runs. xdp-trafficgen pins itself to the first core, so all the others go there too.
cpu=0
other_cpu=1
# A sender that has not sent anything by then does not run here. DPDK takes some 2 s to start.
start_within=15
warm_up=0.3

install_packages() {
    local wanted=(xdp-tools netsniff-ng dpdk dpdk-dev iproute2 ethtool) missing=() package
    for package in "${wanted[@]}"; do
        dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    apt-get update -qq
    # Without recommendations: those of dpdk-dev are compilers, its drivers come by dependencies.
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# xdp-tools of Debian unstable with all its libraries, down to the dynamic linker, so that nothing of the system changes.
unpack_newer_xdp_tools() {
    local apt=$unpacked.apt deb
    mkdir -p "$apt"/{state/lists/partial,cache/archives/partial} "$unpacked"
    touch "$apt/status"
    # From wherever this machine gets its Debian packages.
    local repository
    repository=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $repository sid main" >"$apt/sources.list"
    local options=(-qq -o "Dir::State=$apt/state" -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt/cache"
        -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null)
    apt-get "${options[@]}" update
    apt-get "${options[@]}" install -y --no-install-recommends --download-only xdp-tools >/dev/null
    for deb in "$apt"/cache/archives/*.deb; do
        dpkg -x "$deb" "$unpacked"
    done
    rm -rf "$apt"
}

near=weir-peers-$$-near far=weir-peers-$$-far
logs=$(mktemp -d)
running=
clean_up() {
    [ -z "$running" ] || kill "$running" 2>/dev/null || true
    # The sink ends with its input. The veth pair goes with its namespaces.
    [ -z "${SINK_PID:-}" ] || kill "$SINK_PID" 2>/dev/null || true
    wait 2>/dev/null || true
    ip netns del "$near" 2>/dev/null || true
    ip netns del "$far" 2>/dev/null || true
    rm -rf "$logs"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# Not `ip netns exec`, which hides the BPF file system.
within() { nsenter --net="/run/netns/$1" "${@:2}"; }

# Generators in their order; by name: label, version, what is sent, command, why it did not run.
names=()
declare -A label version sends command why
# add NAME LABEL VERSION SENDS COMMAND...; a version of "" says that it is not there
add() {
    names+=("$1")
    label[$1]=$2 version[$1]=$3 sends[$1]=$4 command[$1]="${*:5}"
    [ -n "$3" ] || why[$1]="not installed (--install)"
}
package_version() { dpkg-query -W -f '${Version}' "$1" 2>/dev/null || true; }
version_of() {
    local said
    said=$("$@" 2>/dev/null || true)
    grep -o '[0-9]\+\.[0-9.]*[0-9]' <<<"$said" | sed -n 1p || true
}
# Whether xdp-trafficgen, run by this command, can send through AF_XDP.
has_xsk_udp() { [[ $("$@" help 2>&1 || true) == *xsk-udp* ]]; }

add_generators() {
    local here dpdk testpmd trafgen
    here=$(version_of "$pktgen" --version)
    add bare "bare AF_XDP transmitter" "$here" "one constant frame" "$peer" bare near $cpu
    add af_xdp "pktgen, af_xdp" "$here" "4,096 flows, sequence, time, checksum" \
        taskset -c $cpu "$pktgen" send --interface near --destination-mac "$mac" --flows 4096 --rate max --seconds 60
    add live "pktgen, live" "$here" "4,096 flows, sequence, time, checksum" "$peer" live near $cpu

    add_xdp_trafficgen "" xdp-trafficgen
    if [ -d "$unpacked/usr" ]; then
        add_xdp_trafficgen "newer_" "$unpacked/usr/lib64/ld-linux-x86-64.so.2" --library-path \
            "$unpacked/usr/lib/x86_64-linux-gnu" "$unpacked/usr/sbin/xdp-trafficgen"
    fi

    trafgen=$(version_of trafgen --version)
    echo "{ eth(da=$mac, sa=02:00:00:00:00:01), ipv4(sa=198.18.0.1, da=198.19.0.1), udp(sp=1024, dp=9), fill(0, 18) }" \
        >"$logs/trafgen.cfg"
    add trafgen "trafgen" "$trafgen" "one constant frame" \
        taskset -c $cpu trafgen --dev near --conf "$logs/trafgen.cfg" --cpus 1 --no-sock-mem

    dpdk=$(package_version dpdk-dev)
    testpmd=(dpdk-testpmd -l "$cpu,$other_cpu" --main-lcore "$other_cpu" --no-huge -m 256 --no-pci --no-shconf --no-telemetry)
    local options=(-- --total-num-mbufs=16384 --burst=64 --txpkts=60 --stats-period=1000)
    add testpmd "testpmd txonly, net_af_xdp" "$dpdk" "one flow" \
        "${testpmd[@]}" --vdev=net_af_xdp0,iface=near "${options[@]}" --forward-mode=txonly
    add testpmd_flows "testpmd flowgen, net_af_xdp" "$dpdk" "4,096 flows" \
        "${testpmd[@]}" --vdev=net_af_xdp0,iface=near "${options[@]}" --forward-mode=flowgen --flowgen-flows=4096
    add testpmd_packet "testpmd txonly, net_af_packet" "$dpdk" "one flow" \
        "${testpmd[@]}" --vdev=net_af_packet0,iface=near "${options[@]}" --forward-mode=txonly
}

# add_xdp_trafficgen PREFIX COMMAND...: its packets are IPv6, so 64 bytes without FCS are its shortest
add_xdp_trafficgen() {
    local prefix=$1 is
    shift
    is=$(version_of "$@" udp --version)
    add "${prefix}udp" "xdp-trafficgen udp" "$is" "one flow, IPv6" "$@" udp -m "$mac" near
    add "${prefix}udp_ports" "xdp-trafficgen udp, dynamic ports" "$is" "4,096 flows, IPv6" "$@" udp -m "$mac" -d 4096 near
    add "${prefix}xsk_udp" "xdp-trafficgen xsk-udp" "$is" "one constant frame" \
        taskset -c $cpu "$@" xsk-udp -m "$mac" -Q near
    if [ -n "$is" ] && ! has_xsk_udp "$@"; then
        why[${prefix}xsk_udp]="no such mode before 1.6"
    fi
}

# The sink's count, and CLOCK_MONOTONIC with it: `packets`, `now`.
ask() {
    echo >&"${SINK[1]}"
    read -r -t 10 packets now <&"${SINK[0]}"
}

# measure NAME: one round of it
measure() {
    local name=$1 log=$logs/$1 first before since says
    ask
    first=$packets
    # shellcheck disable=SC2086 # No argument of these has a blank in it.
    timeout --kill-after=3 $((start_within + ${seconds%.*} + 15)) nsenter --net="/run/netns/$near" ${command[$name]} \
        >"$log" 2>&1 </dev/null &
    running=$!
    for ((tries = 0; tries < start_within * 10; tries++)); do
        sleep 0.1
        ask
        ((packets < first + 10000)) || break
        kill -0 $running 2>/dev/null || break
    done
    if ((packets < first + 10000)); then
        # Trims it, too.
        read -r says < <(grep -aim1 'fail\|error' "$log" || tail -n 1 "$log") || true
        why[$name]="sent nothing; says: ${says:-nothing}"
    else
        sleep $warm_up
        ask
        before=$packets since=$now
        sleep "$seconds"
        ask
        awk "BEGIN { print ($packets - $before) / ($now - $since) * 1e3 }" >>"$logs/$name.mpps"
    fi
    kill $running 2>/dev/null || true
    wait $running 2>/dev/null || true
    running=
}

# Median, minimum and maximum of numbers, one in a line.
summary() {
    sort -g | awk '{ v[NR] = $1 }
        END { low = int((NR + 1) / 2); printf "%.3f %.3f %.3f\n", (v[low] + v[NR + 1 - low]) / 2, v[1], v[NR] }'
}

print_table() {
    local name median min max bare of_medians of_rounds
    read -r bare _ < <(summary <"$logs/bare.mpps")
    echo "| generator | version | packets | Mpps median | min | max | ratio of medians | median of ratios |"
    echo "|---|---|---|---|---|---|---|---|"
    for name in "${names[@]}"; do
        [ -s "$logs/$name.mpps" ] || continue
        read -r median min max < <(summary <"$logs/$name.mpps")
        of_medians=$(awk "BEGIN { printf \"%.3f\", $median / $bare }")
        read -r of_rounds _ < <(paste "$logs/$name.mpps" "$logs/bare.mpps" | awk 'NF == 2 { print $1 / $2 }' | summary)
        echo "| ${label[$name]} | ${version[$name]} | ${sends[$name]} | $median | $min | $max | $of_medians | $of_rounds |"
    done
    echo
    for name in "${names[@]}"; do
        [ -z "${why[$name]:-}" ] || echo "Did not run here: ${label[$name]} ${version[$name]}: ${why[$name]}"
    done
}

[ $install = no ] || install_packages
if [ $install = yes ] && ! has_xsk_udp xdp-trafficgen && [ ! -d "$unpacked/usr" ]; then
    unpack_newer_xdp_tools
fi
(cd "$root" && cargo build --quiet --release --locked -p pktgen -p weir-benches --bin pktgen --example peer)
pktgen=$target/release/pktgen peer=$target/release/examples/peer

ip netns add "$near"
ip netns add "$far"
ip link add near netns "$near" numtxqueues 1 numrxqueues 1 type veth peer name far netns "$far" numtxqueues 1 numrxqueues 1
for end in near far; do
    # No address, so that the kernel has nothing to say of its own.
    ip -n "${!end}" link set $end addrgenmode none up
done
# Redirected frames reach the other end of a veth through a native program or this.
[ "$sink" = native ] || within "$far" ethtool -K far gro on
mac=$(ip -n "$far" -br link show far | awk '{ print $3 }')
coproc SINK { exec nsenter --net="/run/netns/$far" "$peer" sink far "$sink"; }
add_generators
mapfile -t machine < <("$peer" machine)
load=$(cut -d' ' -f1-3 /proc/loadavg)
for ((round = 0; round < rounds; round++)); do
    for ((at = 0; at < ${#names[@]}; at++)); do
        name=${names[$(((round + at) % ${#names[@]}))]}
        [ -n "${why[$name]:-}" ] || measure "$name"
    done
    echo "round $((round + 1)) of $rounds" >&2
done
mapfile -t after < <("$peer" machine)

echo "$(date -u +%F), ${machine[0]}; one core; 64 B with FCS (xdp-trafficgen: 68); sink: $sink XDP"
echo "$rounds rounds of $seconds s each, interleaved; empty system call ${machine[1]} ns before, ${after[1]} ns after;" \
    "load average before: $load"
echo
print_table
