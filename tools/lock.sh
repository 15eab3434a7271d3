#!/usr/bin/env bash
# Pin what pyproject.toml asks for, with the hash of every file, naming no index: whoever installs brings their own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

compile() {
    .venv/bin/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header --no-emit-index-url \
        --no-emit-find-links --no-emit-trusted-host --no-emit-options "$@" pyproject.toml requirements/build.in
}
compile --output-file requirements/runtime.txt
compile --output-file requirements/dev.txt --extra dev --constraint requirements/runtime.txt
