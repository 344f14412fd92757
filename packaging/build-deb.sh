#!/usr/bin/env bash
# Builds the Debian package; prints its path. Needs cargo-deb (`cargo install cargo-deb --locked`), dpkg-dev and a minute or
# five for the release build. PROFILE=dev packages a debug build, for trying the package itself.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${PROFILE:-release}
target=${CARGO_TARGET_DIR:-$PWD/target}
case $profile in dev) built=debug ;; *) built=$profile ;; esac

cargo build --locked --profile "$profile" -p weir -p pktgen --bins >&2
weir=$target/$built/weir

# Everything that is generated or may not be there, laid out as it will lie in /usr/share.
stage=packaging/stage
rm -rf "$stage"
mkdir -p "$stage"/{weir,man/man1,bash-completion/completions,zsh/vendor-completions,fish/vendor_completions.d}
"$weir" schema > "$stage/weir/weir.schema.json"
"$weir" man "$stage/man/man1"
"$weir" completions bash > "$stage/bash-completion/completions/weir"
"$weir" completions zsh > "$stage/zsh/vendor-completions/_weir"
"$weir" completions fish > "$stage/fish/vendor_completions.d/weir.fish"
for extra in grafana prometheus; do
    if [ -d "packaging/$extra" ]; then cp -r "packaging/$extra" "$stage/weir/"; fi
done
gzip -9n < CHANGELOG.md > "$stage/changelog.gz"
version=$(cargo metadata --format-version 1 --no-deps --locked | python3 -c '
import json, sys
print(next(p["version"] for p in json.load(sys.stdin)["packages"] if p["name"] == "weir"))')
printf 'weir (%s-1) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- weir maintainers <maintainers@weir.example.org>  %s\n' \
    "$version" "$(date -Ru -d "@${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}")" > "$stage/changelog"

cargo deb -p weir --no-build --strip --profile "$profile" ${DEB_VERSION:+--deb-version "$DEB_VERSION"} ${OUTPUT:+--output "$OUTPUT"}
