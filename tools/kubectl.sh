#!/usr/bin/env bash
# Every kubectl on this machine, one a line, as `MINOR PATH` (33 /usr/bin/kubectl.1.33), newest first.
#
#   tools/kubectl.sh            list; when none is 1.32 or newer and Go is there, build one into .cache/bin first
#   tools/kubectl.sh --newest   only the path of the newest
#
# Building takes the Go module proxy and about a minute and a half on two cores; it happens once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
WANTED=32
BUILT=$PWD/.cache/bin/kubectl

candidates() {
    local directory file
    local -a directories
    IFS=: read -r -a directories <<<"$PATH"
    for directory in "${directories[@]}" /usr/local/bin /usr/bin /snap/bin "$(dirname "$BUILT")" \
        /usr/lib/google-cloud-sdk/bin /opt/*/google-cloud-sdk/bin /usr/*/google-cloud-sdk/bin "$HOME"/google-cloud-sdk/bin; do
        for file in "$directory"/kubectl "$directory"/kubectl.1.*; do
            if [ -f "$file" ] && [ -x "$file" ]; then readlink -f "$file"; fi
        done
    done | sort -u
}

list() {
    local file minor
    candidates | while read -r file; do
        minor=$("$file" version --client -o json 2>/dev/null </dev/null | sed -n 's/.*"minor": *"\([0-9]*\).*/\1/p' | head -n 1) || true
        [ -n "$minor" ] && printf '%s %s\n' "$minor" "$file"
    done | sort -k1,1nr -k2,2
}

build() {
    command -v go >/dev/null || return 1
    echo "kubectl.sh: building kubectl from Go modules into .cache/bin (once, a minute or two)" >&2
    mkdir -p "$(dirname "$BUILT")"
    local version
    version=$(sed -n 's#^\s*k8s.io/kubectl v0\.\([0-9.]*\).*#v1.\1#p' tools/kubectl/go.mod)
    (cd tools/kubectl && CGO_ENABLED=0 go build -trimpath -o "$BUILT.new" \
        -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=$(cut -d. -f2 <<<"$version")" .) >&2
    mv "$BUILT.new" "$BUILT"
}

found=$(list)
newest=$(head -n 1 <<<"$found" | cut -d' ' -f1)
if [ "${newest:-0}" -lt $WANTED ]; then
    if build; then found=$(list); else echo "kubectl.sh: no kubectl 1.$WANTED or newer here, and no Go to build one" >&2; fi
fi
if [ "${1:-}" = --newest ]; then
    head -n 1 <<<"$found" | cut -d' ' -f2-
elif [ -n "$found" ]; then
    printf '%s\n' "$found"
fi
