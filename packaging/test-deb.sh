#!/usr/bin/env bash
# Installs, upgrades, removes and purges the package in a clean Debian, and looks at what is left. Needs root, debootstrap and
# the network for the first time (about 120 MB); the clean root is kept in BASE (default target/deb-base) for the next.
#
#   packaging/test-deb.sh             build the release package and test it
#   packaging/test-deb.sh WEIR.deb    test this one; what it is upgraded to is the same with a higher version
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
base=${BASE:-$target/deb-base}
suite=${SUITE:-bookworm}

if [ "${1:-}" = --inside ]; then
    old=$2 new=$3 root=$4
    step() { printf '== %s\n' "$1"; }
    fail() { printf 'FAILED: %s\n' "$1" >&2; exit 1; }
    here() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C "$@"; }
    # Files of the root but those that installing anything changes.
    files() { (cd "$root" && find etc usr var opt srv -xdev \( -path var/lib/dpkg -o -path var/cache -o -path var/log -o \
        -path var/lib/systemd \) -prune -o -print | grep -vE '^etc/(passwd|group|shadow|gshadow|subuid|subgid)-?$' | sort); }

    # Nobody but us sees these mounts; they go with this process.
    mount --make-rprivate /
    mount -t tmpfs none "$root"
    mkdir "$root"/{upper,work,root}
    mount -t overlay none -o "lowerdir=$base,upperdir=$root/upper,workdir=$root/work" "$root/root"
    root=$root/root
    mount -t proc none "$root/proc"
    mount -t tmpfs none "$root/tmp"
    cp "$old" "$root/tmp/old.deb"
    cp "$new" "$root/tmp/new.deb"
    # A minimal Debian leaves manual pages out on purpose in some builds of it: this one must not.
    rm -f "$root"/etc/dpkg/dpkg.cfg.d/*
    files > "$root/tmp/before"

    step "install"
    here dpkg -i /tmp/old.deb >/dev/null
    here weir --version
    here pktgen --version
    here getent group weir >/dev/null || fail "no group weir"
    [ "$(here stat -c '%U:%G %a' /etc/weir)" = "root:weir 750" ] || fail "/etc/weir: $(here stat -c '%U:%G %a' /etc/weir)"
    here man -w weir >/dev/null || fail "no manual page of weir"
    here man weir-apply | grep -q -- --confirm || fail "the manual page of weir apply does not show --confirm"
    here sh -c 'bash -n /usr/share/bash-completion/completions/weir' || fail "the completions are no bash"
    here test -s /usr/share/weir/weir.schema.json || fail "no schema"
    here weir check --config /usr/share/doc/weir/examples/minimal/weir.toml || fail "the minimal example is not valid"
    here weir check --config /usr/share/doc/weir/examples/full/weir.toml || fail "the full example is not valid"
    status=0
    here weir check 2> "$root/tmp/said" || status=$?
    [ "$status" = 2 ] || fail "an empty configuration: exit status $status"
    grep -q region "$root/tmp/said" || fail "an empty configuration: $(cat "$root/tmp/said")"
    here systemd-analyze verify --man=yes weir.service 2> "$root/tmp/said" || true
    grep weir.service "$root/tmp/said" | grep -v 'ignoring: notify-reload' && fail "systemd complains"

    step "upgrade keeps what the operator wrote"
    echo '# mine' >> "$root/etc/weir/weir.toml"
    echo '# mine too' > "$root/etc/weir/contracts.d/ads.toml"
    chmod 0751 "$root/etc/weir"
    mkdir -p "$root/var/lib/weir/history"
    echo kept > "$root/var/lib/weir/history/1"
    here dpkg -i /tmp/new.deb >/dev/null
    tail -1 "$root/etc/weir/weir.toml" | grep -q mine || fail "the upgrade replaced weir.toml"
    [ "$(here stat -c %a /etc/weir)" = 751 ] || fail "the upgrade changed a mode"
    grep -q kept "$root/var/lib/weir/history/1" || fail "the upgrade took the history"
    [ "$(here dpkg-query -W -f '${db:Status-Abbrev}${Version}' weir | cut -c1-2)" = ii ] || fail "not installed"

    step "remove keeps configuration and history"
    here dpkg -r weir >/dev/null
    here sh -c '! command -v weir' || fail "weir is still there"
    [ -e "$root/etc/weir/weir.toml" ] && [ -e "$root/var/lib/weir/history/1" ] || fail "removing took the configuration"

    step "install again finds it"
    here dpkg -i /tmp/new.deb >/dev/null
    tail -1 "$root/etc/weir/weir.toml" | grep -q mine || fail "installing again replaced weir.toml"

    step "purge leaves nothing"
    here dpkg -P weir >/dev/null
    files > "$root/tmp/after"
    diff "$root/tmp/before" "$root/tmp/after" || fail "files were left or taken"
    echo "the package installs, upgrades, goes, and leaves nothing"
    exit 0
fi

if [ $# -eq 1 ]; then old=$(realpath "$1"); else old=$(packaging/build-deb.sh | tail -1); fi
if [ ! -e "$base/usr/bin/dpkg" ]; then
    debootstrap --variant=minbase --include=adduser,man-db,systemd "$suite" "$base"
fi
if command -v lintian >/dev/null; then
    # There is no address of maintainers yet.
    lintian --allow-root --fail-on error --suppress-tags bogus-mail-host,bogus-mail-host-in-debian-changelog "$old"
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
dpkg-deb -R "$old" "$scratch/newer"
sed -i 's/^Version: .*/Version: 99.0-1/' "$scratch/newer/DEBIAN/control"
new=$scratch/new.deb
dpkg-deb -Znone -b "$scratch/newer" "$new" >/dev/null
mkdir "$scratch/root"
unshare --mount --net "$0" --inside "$old" "$new" "$scratch/root"
