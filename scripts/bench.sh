#!/usr/bin/env bash
# Figures beside a baseline of the same run: build cold, warm and changed, packing beside tar and zstd, verifying beside openssl,
# unpacking beside zstd and tar, memory, time to Ready.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/prerequisites.sh
exec cargo run --quiet -p e2e --bin bed -- bench
