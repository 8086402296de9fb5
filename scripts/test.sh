#!/usr/bin/env bash
# Runs all tests: scripts/test.sh; or one suite: scripts/test.sh unit|builder|host|cluster
#   unit     formatting, lints, licences, scripts, the tests of bundle and installer (no root needed)
#   builder  the builder's own tests; then the real one on the Debian manifest and on local registries, archives, repositories (root)
#   host     throwaway systemd hosts: the bed itself, then a master from bundle to pod (root)
#   cluster  several such hosts: joins, failover, power cuts, membership, addresses (root, 16 GiB of memory)
# Ends with one line `N passed, N failed`.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=${1:-all}
case $suite in all | unit | builder | host | cluster) ;; *) echo "usage: scripts/test.sh [unit|builder|host|cluster]" >&2; exit 2 ;; esac
scripts/prerequisites.sh
passed=0 failed=0 log=$(mktemp)
# Hosts of an interrupted run go at the end of this one.
trap 'rm -f "$log"; "${CARGO_TARGET_DIR:-target}/debug/bed" clean 2>/dev/null || true' EXIT

check() { # NAME PROGRAM...: one test
    echo "== $1"
    if "${@:2}"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED: $1"; fi
}
tests() { # NAME PROGRAM...: as many tests as its result lines say
    local status=0 ok bad
    echo "== $1"
    "${@:2}" 2>&1 | tee "$log" || status=$?
    ok=$(awk '/^test result:/ { sum += $4 } END { print sum + 0 }' "$log")
    bad=$(awk '/^test result:/ { sum += $6 } END { print sum + 0 }' "$log")
    if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then bad=1; echo "FAILED: $1"; fi
    passed=$((passed + ok)) failed=$((failed + bad))
}
small() { ! cargo tree --quiet -p installer -e normal --prefix none | grep -E '^(tokio|async-std|hyper|reqwest|ureq) '; }
short() { ! wc -l scripts/*.sh .ci/run | awk '$2 != "total" && $1 >= 50' | grep .; }

if [ "$suite" = all ] || [ "$suite" = unit ]; then
    check "formatting" cargo fmt --all --check
    check "lints" cargo clippy --quiet --workspace --all-targets -- -D warnings
    check "bans, licences, sources" cargo deny --log-level error check bans licenses sources
    check "no async runtime, no general HTTP client in the installer" small
    check "scripts" shellcheck scripts/*.sh .ci/run
    check "scripts are short" short
    tests "unit" cargo test --quiet --workspace --exclude e2e --exclude builder --no-fail-fast
fi
if [ "$suite" = all ] || [ "$suite" = builder ]; then
    tests "builder" cargo test --quiet -p builder --no-fail-fast
    tests "builder on real sources" cargo test --quiet -p e2e --no-fail-fast --test builder
fi
if [ "$suite" = all ] || [ "$suite" = host ]; then tests "host" cargo test --quiet -p e2e --no-fail-fast --test bed --test host; fi
if [ "$suite" = all ] || [ "$suite" = cluster ]; then tests "cluster" cargo test --quiet -p e2e --no-fail-fast --test cluster; fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
