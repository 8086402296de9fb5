#!/usr/bin/env bash
# Installs what building and testing Sealift needs on a Debian 12 machine with Rust: Debian packages by apt, cargo-deny by
# cargo. Does nothing, quickly, when all of it is there. Needs root for the packages and says so.
set -euo pipefail
packages=(
    build-essential dpkg-dev golang-go golang-github-modern-go-reflect2-dev jq rsync         # Kubernetes from source
    systemd-container mmdebstrap debian-archive-keyring iproute2 nftables util-linux curl     # throwaway hosts
    qemu-system-x86 qemu-utils e2fsprogs ovmf dosfstools mtools                               # throwaway machines
    minisign skopeo umoci zstd xz-utils openssl age etcd-client gpgv gnupg tar time file          # independent judges
    createrepo-c dnf rpm rpm2cpio cpio                                                        # EL, likewise
    docker-registry                                                                           # a server that tests start
    shellcheck git
)
hint() { printf 'error: %s\nhint: %s\n' "$1" "$2" >&2; exit 1; }

command -v cargo >/dev/null || hint "cargo is not installed" "install Rust 1.90 or newer with rustup, then run this again"
installed=$(dpkg-query -W -f='${Package} ${db:Status-Status}\n' "${packages[@]}" 2>/dev/null | awk '$2 == "installed" { print $1 }')
mapfile -t missing < <(printf '%s\n' "${packages[@]}" | grep -vxF -e "$installed" || true)
if [ "${#missing[@]}" -gt 0 ]; then
    [ "$(id -u)" = 0 ] || hint "packages are missing: ${missing[*]}" "run scripts/prerequisites.sh as root once"
    echo "installing ${missing[*]}" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update >&2 || hint "the package lists could not be fetched" "check this machine's apt sources with: apt-get update"
    apt-get -qq -y --no-install-recommends install "${missing[@]}" >&2 ||
        hint "the packages could not be installed" "run: apt-get install ${missing[*]}"
    systemctl --quiet disable --now docker-registry 2>/dev/null || true # Debian starts it at once, on every interface
fi

# A debug build of cargo-deny takes a third of the time and is as quick in use. It lands in cargo's own bin directory.
version=0.20.2
if [ "$(cargo deny --version 2>/dev/null)" != "cargo-deny $version" ]; then
    echo "installing cargo-deny $version (a few minutes, once)" >&2
    cache=${SEALIFT_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sealift-test}
    CARGO_TARGET_DIR=$cache/cargo-deny cargo install --quiet --locked --debug --force "cargo-deny@$version" >&2 ||
        hint "cargo-deny could not be built" "run: cargo install --locked cargo-deny@$version"
    rm -rf "$cache/cargo-deny"
fi
