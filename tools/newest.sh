#!/usr/bin/env bash
# Run the unit tests with the newest packages that pyproject.toml allows, in a virtual environment of their own.
#
#   tools/newest.sh [PYTEST ARGUMENT…]      what `make test-newest` runs (asks the package index)
#
# The lock files say what is shipped; this says whether the bounds in pyproject.toml are true.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV=.cache/newest
export PIP_DISABLE_PIP_VERSION_CHECK=1

[ -x "$VENV/bin/python" ] || "${PYTHON:-python3}" -m venv "$VENV"
"$VENV/bin/pip" install -q --upgrade --upgrade-strategy eager -e '.[dev]'
echo "newest: $("$VENV/bin/pip" list --format freeze --exclude-editable | tr '\n' ' ')"
PATH="$PATH:/usr/sbin:/sbin" exec "$VENV/bin/python" -m pytest -q -n "${WORKERS:-2}" --dist loadgroup -p no:cacheprovider tests/unit "$@"
