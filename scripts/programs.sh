#!/usr/bin/env bash
# Builds the release programs, prints the directory that holds `builder` and `installer`, and proves what the installer promises:
# one static file of at most 15 MiB. Paths of this machine do not get into them.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=$PWD=sealift --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo"
# One at a time: the writing half of `bundle`, which the builder needs, must not end up in the installer.
for program in builder installer; do cargo build --quiet --release --locked --target "$target" -p "$program" >&2; done
out=${CARGO_TARGET_DIR:-$PWD/target}/$target/release
ldd "$out/installer" 2>&1 | grep -qE 'statically linked|not a dynamic executable' ||
    { echo "error: $out/installer needs shared libraries" >&2; exit 1; }
size=$(stat -c %s "$out/installer")
[ "$size" -le $((15 * 1024 * 1024)) ] || { echo "error: $out/installer has $size bytes, more than 15 MiB" >&2; exit 1; }
echo "$out"
