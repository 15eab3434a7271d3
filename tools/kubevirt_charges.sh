#!/usr/bin/env bash
# What KubeVirt's own renderer asks for the machines of tests/golden/kubevirt/machines.yaml, by version, into launchers.json.gz
# beside it: the charges of machines are held against it. Takes Go, some 20 minutes of CPU and 3 GiB of disk from empty caches.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
SOURCE=$PWD/tools/kubevirt_charges
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

.venv/bin/python tools/kubevirt_charges/pack.py machines >"$WORK/machines.json"

# The row of the table, the newest patch of KubeVirt that can be fetched, and that of its api and client modules.
while read -r row kubevirt api client; do
    work=$WORK/$row
    mkdir "$work"
    cp "$SOURCE"/*.go "$work"
    module=$(go mod download -json "kubevirt.io/kubevirt@$kubevirt" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
    sed -e 's#^module .*#module charges#' -e '/^tool (/,/^)/d' -e '/golang.glog => .\/staging/d' \
        -e "s#kubevirt.io/api => .*#kubevirt.io/api => kubevirt.io/api $api#" \
        -e "s#kubevirt.io/client-go => .*#kubevirt.io/client-go => kubevirt.io/client-go $client#" \
        "$module/go.mod" >"$work/go.mod"
    cat "$module/go.sum" >"$work/go.sum"
    (
        cd "$work"
        go mod edit -require "kubevirt.io/kubevirt@$kubevirt"
        if [ "$row" = 1.9 ]; then # imported by 1.9, and not published
            for absent in virt-template-api virt-template-client-go; do
                go mod edit -replace "kubevirt.io/$absent=$SOURCE/absent/$absent"
            done
        fi
        CGO_ENABLED=0 GOFLAGS=-mod=mod go build -tags "v${row/./_}" -o charges .
        ./charges <"$WORK/machines.json" >"$WORK/$row.json"
    )
done <<'VERSIONS'
1.4 v1.4.1 v1.4.0 v1.4.0
1.5 v1.5.2 v1.5.0 v1.5.0
1.6 v1.6.0 v1.6.0 v1.6.0
1.7 v1.7.0 v1.7.0 v1.7.0
1.8 v1.8.0 v1.8.0 v1.8.0
1.9 v1.9.0 v1.9.0 v1.9.0
VERSIONS

.venv/bin/python tools/kubevirt_charges/pack.py launchers "$WORK"/1.*.json
