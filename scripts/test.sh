#!/usr/bin/env bash
# All suites, of `machine` the upgrade alone; all of that too (`full`); or one. Ends with `N passed, N failed`.
#   unit     formatting, lints, licences, scripts, the tests of bundle and installer (no root)
#   builder  the builder's own tests; then the real one on the Debian manifest and on local registries, archives, repositories (root)
#   host     throwaway systemd hosts: the bed itself, then a master from bundle to pod (root)
#   machine  a virtual machine: another kernel, reboots, bad kernels, power cuts, full disks (root, two hours)
#   cluster  several such hosts: joins, failover, power cuts, membership, addresses (root, 16 GiB of memory)
set -euo pipefail
cd "$(dirname "$0")/.."
suite=${1:-all} suites="full|unit|builder|host|machine|cluster"
[[ "|all|$suites|" == *"|$suite|"* ]] || { echo "usage: scripts/test.sh [$suites]" >&2; exit 2; }
scripts/prerequisites.sh
passed=0 failed=0 upgrade="" ended=0 log=$(mktemp) # hosts of an interrupted run go at the end of this one
trap '[ -z "$upgrade" ] || kill -- "-$upgrade" || true; rm -f "$log" "$log.2"; "${CARGO_TARGET_DIR:-target}/debug/bed" clean 2>/dev/null || true' EXIT

check() { # NAME PROGRAM...: one test
    echo "== $1"
    if "${@:2}"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED: $1"; fi
}
tests() { # NAME PROGRAM...: as many tests as its result lines say
    local status=0 ok bad
    echo "== $1"
    "${@:2}" 2>&1 | tee "$log" || status=$?
    read -r ok bad < <(awk '/^test result:/ { ok += $4; bad += $6 } END { print ok + 0, bad + 0 }' "$log")
    if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then bad=1; echo "FAILED: $1"; fi
    passed=$((passed + ok)) failed=$((failed + bad))
}
runs() { [[ $suite == all || $suite == full || $suite == "$1" ]]; }
real() { tests "$1" cargo test --quiet -p e2e --no-fail-fast "${@:2}"; }
beside() { cat "$log.2"; return "$ended"; }
small() { ! cargo tree --quiet -p installer -e normal --prefix none | grep -E '^(tokio|async-std|hyper|reqwest|ureq) '; }
short() { ! wc -l scripts/*.sh .ci/run | awk '$2 != "total" && $1 >= 50' | grep .; }

if [[ $suite == all ]]; then # its clock is its own, so it can take its time beside the others
    setsid cargo test --quiet -p e2e --test machine -- an_older_kernel >"$log.2" 2>&1 & upgrade=$!
fi
if runs unit; then
    check "formatting" cargo fmt --all --check; check "lints" cargo clippy --quiet --workspace --all-targets -- -D warnings
    check "bans, licences, sources" cargo deny --log-level error check bans licenses sources
    check "no async runtime, no general HTTP client in the installer" small
    check "scripts" shellcheck scripts/*.sh .ci/run; check "scripts are short" short
    tests "unit" cargo test --quiet --workspace --exclude e2e --exclude builder --no-fail-fast
fi
if runs builder; then tests "builder" cargo test --quiet -p builder --no-fail-fast; real "builder on real sources" --test builder; fi
if runs host; then real "host" --lib --test bed --test host; fi
if runs cluster; then real "cluster" --test cluster; fi
if [[ $suite == full || $suite == machine ]]; then real "machine" --test machine; fi
if [[ $upgrade ]]; then wait "$upgrade" || ended=$?; upgrade=""; tests "machine, beside the others" beside; fi
echo "$passed passed, $failed failed"; [ "$failed" -eq 0 ]
