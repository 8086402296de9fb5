#!/usr/bin/env bash
# Measures how fast the proxy on a node gets over a master that is killed, vanishes, hangs or restarts: scripts/failover.sh
# Debian's nginx (the one of the Debian bundle), the rendered configuration and the real agent, in a network namespace of
# their own; ROUNDS=n for more than three rounds, VERBOSE=1 for what the agent says. Needs root.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/prerequisites.sh
cache=${SEALIFT_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sealift-test}/nginx
if [ ! -x "$cache/bin/nginx" ]; then
    unpacked=$(mktemp -d)
    trap 'rm -rf "$unpacked"' EXIT
    (cd "$unpacked" && apt-get -qq download nginx libnginx-mod-stream && for package in *.deb; do dpkg -x "$package" .; done)
    mkdir -p "$cache/bin" "$cache/modules"
    cp "$unpacked/usr/lib/nginx/modules/ngx_stream_module.so" "$cache/modules/"
    cp "$unpacked/usr/sbin/nginx" "$cache/bin/"
fi
exec cargo run --quiet -p installer --example failover -- "$cache"
