#!/usr/bin/env bash
# A real Kubernetes control plane for the tests: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubectl and
# kwok, built once from their Go modules (tools/kubernetes/go.mod pins the versions).
#
#   tools/kubernetes.sh         build what is missing, then print the directory that holds the binaries
#   tools/kubernetes.sh --have  print it only when everything is there; exit 1 otherwise, building nothing
#
# From empty caches it takes some ten minutes of CPU and about 3 GiB of memory; after that, nothing. The directory is
# .cache/kubernetes, or $ISOPLANE_KUBERNETES_CACHE where several checkouts share one.
# Starting them is left to tests/kubernetes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/kubernetes"
CACHE=${ISOPLANE_KUBERNETES_CACHE:-$(cd ../.. && pwd)/.cache/kubernetes}
NAMES=(etcd kube-apiserver kube-controller-manager kube-scheduler kubectl kwok)

key=$(cat go.mod go.sum | sha256sum | cut -c1-16)
BIN=$CACHE/$key

have() {
    local name
    for name in "${NAMES[@]}"; do [ -x "$BIN/$name" ] || return 1; done
    [ -s "$BIN/stages.yaml" ]
}

build() { # NAME PACKAGE
    [ ! -x "$BIN/$1" ] || return 0
    echo "kubernetes.sh: building $1" >&2
    CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags "$LDFLAGS" -o "$BIN/$1.new" "$2" >&2
    mv "$BIN/$1.new" "$BIN/$1"
}

stages() { # what makes kwok's nodes Ready and its Pods run, from kwok's own module
    local module part
    module=$(go list -m -f '{{.Dir}}' sigs.k8s.io/kwok)/kustomize/stage
    for part in node/fast/node-initialize node/heartbeat-with-lease/node-heartbeat-with-lease \
        pod/fast/pod-ready pod/fast/pod-complete pod/fast/pod-delete; do
        cat "$module/$part.yaml"
        printf '\n---\n'
    done >"$BIN/stages.yaml.new"
    mv "$BIN/stages.yaml.new" "$BIN/stages.yaml"
}

if ! have; then
    [ "${1:-}" != --have ] || exit 1
    command -v go >/dev/null || { echo "kubernetes.sh: Go is needed to build them (apt-get install golang, 1.26 or newer)" >&2; exit 1; }
    mkdir -p "$BIN"
    exec 9>"$BIN/.lock"
    flock 9
    version=$(sed -n 's#^\s*k8s.io/kubernetes \(v[0-9.]*\).*#\1#p' go.mod)
    minor=$(cut -d. -f2 <<<"$version")
    LDFLAGS="-s -w"
    for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        LDFLAGS+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$minor -X $package.gitTreeState=clean"
    done
    build etcd go.etcd.io/etcd/server/v3
    build kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver
    build kube-controller-manager k8s.io/kubernetes/cmd/kube-controller-manager
    build kube-scheduler k8s.io/kubernetes/cmd/kube-scheduler
    build kubectl k8s.io/kubernetes/cmd/kubectl
    build kwok sigs.k8s.io/kwok/cmd/kwok
    stages
fi
echo "$BIN"
