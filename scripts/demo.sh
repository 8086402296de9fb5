#!/usr/bin/env bash
# From nothing to a Kubernetes master: builds the programs, makes a throwaway key, locks and builds the Debian bundle, boots a host that
# reaches nothing but its own bridge, runs `installer --role master` there, starts a pod, shows nodes and pods, prints figures.
#   --keep    leave the host running and say how to enter it
#   --clean   remove a host that was kept, by the name of its run
# Products: target/demo/*.bundle, target/demo/installer, target/demo/demo.pub. Needs root and Debian 12 with Rust.
set -euo pipefail
cd "$(dirname "$0")/.."
case ${1:-} in
    --clean) exec cargo run --quiet -p e2e --bin bed -- clean "${@:2}" ;;
    "" | --keep) ;;
    *) echo "usage: scripts/demo.sh [--keep | --clean RUN]" >&2; exit 2 ;;
esac
scripts/prerequisites.sh
exec cargo run --quiet -p e2e --bin bed -- demo "$@"
