#!/usr/bin/env bash
# Builds the Kubernetes 1.20.2 server programs from Debian's source package and packs them in the layout of upstream's
# server archive, so that the real component recipes can be exercised where dl.k8s.io cannot be reached.
# Prints the directory that holds `v1.20.2/kubernetes-server-linux-amd64.tar.gz` and the pause program beside it.
# The result is cached outside the work tree; the first build takes about 8 minutes on 2 cores.
set -euo pipefail
cache=${SEALIFT_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sealift-test}
programs=(kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl)
version=v1.20.2
mkdir -p "$cache/apt-src/lists/partial"
exec 9>"$cache/kubernetes.lock"; flock 9
out=$cache/kubernetes-$(sha256sum "${BASH_SOURCE[0]}" | cut -c1-16) # another script makes other programs
if [ -e "$out/complete" ]; then echo "$out"; exit; fi

# deb-src entries are derived from the machine's own apt configuration; the machine's files stay as they are.
sed -n 's/^Types:.*/Types: deb-src/;p' /etc/apt/sources.list.d/debian.sources >"$cache/apt-src/src.sources" 2>/dev/null ||
    sed -n 's/^deb /deb-src /p' /etc/apt/sources.list >"$cache/apt-src/src.list"
apt=(apt-get -qq -o APT::Sandbox::User=root -o "Dir::Etc::sourceparts=$cache/apt-src" -o Dir::Etc::sourcelist=/dev/null
    -o "Dir::State::lists=$cache/apt-src/lists")
"${apt[@]}" update >&2
echo "building Kubernetes $version from source (about 8 minutes)" >&2
rm -rf "$out" "$cache"/build.* # of a run that was killed: the lock is ours
work=$(mktemp -d "$cache/build.XXXXXX"); trap 'rm -rf "$work"' EXIT
(cd "$work" && "${apt[@]}" source kubernetes >&2)
tree=$(find "$work" -maxdepth 1 -type d -name 'kubernetes-*')
# The vendored reflect2 panics on map iteration with Go 1.18 and later; Debian's package is the fixed 1.0.2.
reflect2=$tree/vendor/github.com/modern-go/reflect2
rm -rf "$reflect2" && cp -a /usr/share/gocode/src/github.com/modern-go/reflect2 "$reflect2"
mkdir -p "$work/go/src/k8s.io" && ln -s "$tree" "$work/go/src/k8s.io/kubernetes"
export GOPATH=$work/go GO111MODULE=off CGO_ENABLED=0 GOCACHE=$work/cache GOFLAGS=-trimpath FORCE_HOST_GO=y
cd "$work/go/src/k8s.io/kubernetes"
make generated_files >&2 && make gen_openapi >&2
ldflags="-s -w"; for value in gitVersion=$version gitMajor=1 gitMinor=20 gitTreeState=clean; do
    for package in component-base client-go/pkg; do ldflags+=" -X k8s.io/kubernetes/vendor/k8s.io/$package/version.$value"; done; done
bin=$work/pack/kubernetes/server/bin; mkdir -p "$bin" "$out/$version"
for program in "${programs[@]}"; do go build -ldflags "$ldflags" -o "$bin/$program" "./cmd/$program" >&2; done
gcc -Os -Wall -static -DVERSION=3.2 -o "$out/$version/pause" build/pause/linux/pause.c && strip "$out/$version/pause"
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$work/pack" -c kubernetes | gzip -n -1 >"$out/$version/kubernetes-server-linux-amd64.tar.gz"
touch "$out/complete"
echo "$out"
