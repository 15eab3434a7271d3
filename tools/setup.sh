#!/usr/bin/env bash
# Set up a checkout: the virtual environment, the locked Python packages and, as root on Debian, the missing packages.
#
#   tools/setup.sh            everything (what `make setup` runs)
#
# It works only where something is missing: a second run compares one stamp and looks at one file a package.
# An ordinary user is told what is missing and gets a virtual environment all the same.
# Leaves to others: building images (isoplane image), another kubectl (tools/kubectl.sh).
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PACKAGES=tools/debian-packages.txt
VENV=.venv
STAMP=$VENV/.isoplane-setup
TRIED=$VENV/.isoplane-packages-tried
export DEBIAN_FRONTEND=noninteractive PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }
have_apt() { command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; }
is_root() { [ "$(id -u)" -eq 0 ]; }

# --- Debian packages -------------------------------------------------------------------------------------------------

apt() { # ARGS…: apt-get that waits while another one holds the lock
    apt-get -q -y -o DPkg::Lock::Timeout=300 -o APT::Lock::Timeout=300 "$@" </dev/null >/dev/null
}
apt_update() { # mirrors hiccup, so three times
    local attempt
    for attempt in 1 2 3; do
        if apt update; then return 0; fi
        say "apt-get update failed (attempt $attempt of 3)" >&2
        sleep $((attempt * 3))
    done
    return 1
}

POLICY=/usr/sbin/policy-rc.d
POLICY_IS_OURS=
hold_services() { # newly installed daemons must not start: isoplane runs its own, in its own directory
    if [ ! -e "$POLICY" ]; then
        POLICY_IS_OURS=yes
        trap release_services EXIT
        printf '#!/bin/sh\n# Written by isoplane tools/setup.sh for the time of one apt-get install.\nexit 101\n' >"$POLICY"
        chmod 755 "$POLICY"
    fi
}
release_services() {
    if [ -n "$POLICY_IS_OURS" ]; then
        rm -f "$POLICY"
        POLICY_IS_OURS=
    fi
}
disable_services() { # PACKAGE…: nor may they start at the next boot, where systemd would
    [ -d /run/systemd/system ] || return 0
    local package unit
    for package in "$@"; do
        dpkg-query -L "$package" 2>/dev/null | sed -n 's#^/lib/systemd/system/\([^/@]*\.\(service\|socket\)\)$#\1#p' |
            while read -r unit; do systemctl disable --quiet "$unit" 2>/dev/null || true; done
    done
}

package_lists() { # the demo's guest takes its kernel from Debian, so they are needed even where no package is missing
    if compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null; then return 0; fi
    say "reading package lists"
    apt_update
}

apt_install() { # PACKAGE…
    local result=0
    package_lists || return 1
    say "installing $*"
    hold_services
    if ! apt install --no-install-recommends "$@"; then
        # Old lists name versions that mirrors no longer have.
        { apt_update && apt install --no-install-recommends "$@"; } || result=1
    fi
    release_services
    [ $result -eq 0 ] && disable_services "$@"
    return $result
}

missing_packages() { # prints `package purpose…` of whatever has no file on this machine
    local package file purpose
    while read -r package file purpose; do
        case $package in '' | \#*) continue ;; esac
        [ -e "$file" ] || command -v "$(basename "$file")" >/dev/null || printf '%s %s\n' "$package" "$purpose"
    done <"$PACKAGES"
}

host_packages() {
    local lines packages
    lines=$(PATH=$PATH:/usr/sbin:/sbin missing_packages)
    if is_root && have_apt; then package_lists || true; fi
    [ -n "$lines" ] || return 0
    mapfile -t packages < <(printf '%s\n' "$lines" | cut -d' ' -f1)
    if is_root && have_apt && ! tried_lately "${packages[*]}"; then
        if apt_install "${packages[@]}"; then return 0; fi
        say "apt-get could not install all of them; those that it knows, one by one:"
        local package
        for package in "${packages[@]}"; do
            if apt-cache show "$package" >/dev/null 2>&1; then apt_install "$package" || true; fi
        done
        lines=$(PATH=$PATH:/usr/sbin:/sbin missing_packages)
        [ -n "$lines" ] || return 0
        printf '%s\n' "$lines" | cut -d' ' -f1 | xargs >"$TRIED"
    fi
    say "not on this machine, so what needs it is left out (the simulated runtime needs none of it):"
    printf '%s\n' "$lines" | while read -r package purpose; do printf '         %-20s %s\n' "$package" "$purpose"; done
    if have_apt && ! is_root; then say "to install them: sudo apt-get install ${packages[*]}"; fi
    return 0
}

tried_lately() { # PACKAGES: did an hour ago or less apt-get fail to get these very ones?
    [ -n "$(find "$TRIED" -mmin -60 2>/dev/null)" ] && [ "$(cat "$TRIED")" = "$1" ]
}

# --- Python ----------------------------------------------------------------------------------------------------------

good_python() { # COMMAND: is it Python 3.11 or newer that can make virtual environments?
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.11 python3.12 python3.13 python3.14 /usr/bin/python3; do
        if command -v "$candidate" >/dev/null && good_python "$candidate"; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

fingerprint() { # what the virtual environment depends on, its own place included: it cannot be moved
    { pwd; "$VENV/bin/python" -VV 2>&1 || true; cat pyproject.toml requirements/runtime.txt requirements/dev.txt; } | sha256sum | cut -c1-64
}

virtual_environment() {
    if [ -e "$STAMP" ] && [ "$(cat "$STAMP")" = "$(fingerprint)" ]; then return 0; fi
    if ! "$VENV/bin/python" -c 'import pip' 2>/dev/null || ! "$VENV/bin/pip" --version >/dev/null 2>&1; then
        local python
        if ! python=$(find_python); then
            if is_root && have_apt; then apt_install python3-venv || true; fi
            python=$(find_python) || fail "needs Python 3.11 or newer with venv; on Debian: apt-get install python3-venv"
        fi
        say "virtual environment in $VENV with $("$python" -V)"
        rm -rf "$VENV"
        "$python" -m venv "$VENV"
    fi
    say "installing locked Python packages"
    local log=$VENV/setup.log
    if ! "$VENV/bin/python" -m pip install -q --require-hashes -r requirements/dev.txt >"$log" 2>&1 ||
        ! "$VENV/bin/python" -m pip install -q --no-deps --no-build-isolation -e . >>"$log" 2>&1; then
        tail -n 20 "$log" >&2
        fail "pip could not install the Python packages (whole log in $log)"
    fi
    fingerprint >"$STAMP"
}

started=$SECONDS
virtual_environment
host_packages
if [ $((SECONDS - started)) -gt 2 ]; then say "done in $((SECONDS - started)) s"; fi
