#!/usr/bin/env bash
# Boots a clean Debian with the package in it, and lets its systemd run weir.service on virtual interfaces: start, status,
# reload, watchdog, journal, stop. Needs root, systemd-nspawn (Debian: systemd-container) and the root that test-deb.sh makes.
#
#   packaging/test-unit.sh WEIR.deb
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
base=${BASE:-$target/deb-base}

if [ "${1:-}" != --inside ]; then
    deb=$(realpath "$1")
    root=$(mktemp -d)
    netns=weir-unit-$$
    # A group of its own, which the container sees as the root of all: it cannot reach any other process.
    unified=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
    group=$unified/$netns
    trap 'ip netns del "$netns" 2>/dev/null; find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null; rmdir "$root"' EXIT
    mkdir "$group"
    ip netns add "$netns"
    for port in lan uplink; do
        ip -n "$netns" link add "$port" type veth peer name "far-$port"
        ip -n "$netns" link set "far-$port" up
    done
    bash -c 'echo $$ > "$1/cgroup.procs"; shift; exec unshare --cgroup --mount --pid --fork --mount-proc "$@"' sh "$group" \
        "$0" --inside "$deb" "$root" "$netns"
    exit
fi

deb=$2 root=$3 netns=$4
mount --make-rprivate /
mount -t tmpfs none "$root"
mkdir "$root"/{upper,work,root}
mount -t overlay none -o "lowerdir=$base,upperdir=$root/upper,workdir=$root/work" "$root/root"
result=$root/upper/root/result
root=$root/root
umount -R /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup

cp "$deb" "$root/root/weir.deb"
chroot "$root" env DEBIAN_FRONTEND=noninteractive dpkg -i /root/weir.deb >/dev/null
cat > "$root/etc/weir/weir.toml" <<'TOML'
region = "atn"
[workers]
poll = "adaptive"
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
name = "best-effort"
priority = 7
default = true
TOML
# A machine of its own gives the unit the locked memory it asks for; a container may not be able to.
mkdir -p "$root/etc/systemd/system/weir.service.d"
printf '[Service]\nAmbientCapabilities=CAP_IPC_LOCK\nCapabilityBoundingSet=CAP_IPC_LOCK\n' \
    > "$root/etc/systemd/system/weir.service.d/memory.conf"
cat > "$root/root/try" <<'TRY'
#!/bin/bash
# Runs in the container, after systemd says that weir.service is ready; what fails ends it.
exec > /root/log 2>&1
set -ex
# A `!` in front would keep bash from ending at it.
refused() { if "$@"; then return 1; fi; }
until_true() { for _ in $(seq 100); do "$@" && return; sleep 0.2; done; return 1; }
systemctl is-active weir.service
weir status
[ "$(stat -c '%U:%G %a' /run/weir/control.sock)" = "weir:weir 660" ]
[ "$(stat -c '%U:%G %a' /run/weir)" = "weir:weir 750" ]
[ "$(stat -c '%U:%G %a' /var/lib/weir)" = "weir:weir 700" ]
setpriv --reuid nobody --regid nogroup --groups weir weir status > /dev/null
refused setpriv --reuid nobody --regid nogroup --clear-groups weir status
pid=$(systemctl show -P MainPID weir)
grep -q '^CapEff:.0000000000000000$' "/proc/$pid/status"
has_status() { systemctl show -P StatusText weir | grep -q 'table [0-9]*, 0 contracts, in '; }
until_true has_status
printf '\n[[service]]\nname = "web"\nendpoints = ["10.0.0.0/24"]\n' > /etc/weir/contracts.d/web.toml
weir apply --confirm 5m
weir confirm
weir rollback
weir history
systemctl kill --signal=HUP --kill-whom=main weir
table_4() { weir status | grep -q 'table 4'; }
until_true table_4
[ "$(systemctl show -P MainPID weir)" = "$pid" ]
journalctl --unit weir -o json | grep '"WEIR_EVENT":"table"' | grep -q '"WEIR_GENERATION":"4"'
journalctl -u weir WEIR_PORT=uplink -o cat | grep -q 'port uplink on uplink'
grep -hE '^(Name|CapEff|Seccomp):' /proc/$(pidof weir)/task/*/status
adduser --quiet --disabled-password --gecos '' alice
refused su alice -c 'weir status'
adduser --quiet alice weir
su alice -c 'weir rollback 1'
weir history | grep -q alice
# Everything hangs: systemd misses the ping, and starts weir anew.
kill -STOP "$pid"
restarted() { [ "$(systemctl show -P NRestarts weir)" = 1 ] && systemctl --quiet is-active weir; }
until_true restarted
weir status | head -1
# An invalid configuration is not tried again and again.
echo nonsense >> /etc/weir/weir.toml
refused weir reload
systemctl is-active weir
refused systemctl restart weir
sleep 2
[ "$(systemctl show -P NRestarts weir)" = 0 ] && systemctl --quiet is-failed weir
sed -i '$d' /etc/weir/weir.toml
systemctl start weir
systemctl stop weir
[ "$(systemctl show -P Result weir)" = success ]
[ ! -e /run/weir ]
setpriv --reuid weir --regid weir --clear-groups \
    --inh-caps -all,+net_admin,+net_raw,+bpf,+ipc_lock --ambient-caps -all,+net_admin,+net_raw,+bpf,+ipc_lock \
    timeout --preserve-status 3 weir run --socket /tmp/weir.sock
echo passed > /root/result
TRY
cat > "$root/etc/systemd/system/try.service" <<'UNIT'
[Unit]
Wants=weir.service
After=weir.service
SuccessAction=exit-force
FailureAction=exit-force
[Service]
Type=oneshot
TimeoutStartSec=90
ExecStart=/bin/bash /root/try
[Install]
WantedBy=multi-user.target
UNIT
chroot "$root" systemctl --quiet enable try.service
timeout 150 systemd-nspawn --quiet --register=no --keep-unit --directory="$root" --network-namespace-path="/run/netns/$netns" \
    --capability=CAP_NET_ADMIN,CAP_NET_RAW,CAP_BPF,CAP_IPC_LOCK --system-call-filter=bpf --console=pipe \
    --boot systemd.unit=multi-user.target < /dev/null > "$root/../console" 2>&1 || true
cat "$root/root/log" || tail -50 "$root/../console"
grep -q passed "$result" || { tail -30 "$root/../console"; chroot "$root" journalctl -u weir --no-pager -n 30 || true; echo "FAILED" >&2; exit 1; }
echo "systemd runs the unit"
