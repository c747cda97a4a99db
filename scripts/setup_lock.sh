#!/bin/sh
# Pins every dependency of every extra in requirements.lock, for each Python and platform that is supported. Pins that
# are there stay, unless --upgrade is given.
#
# usage: setup_lock.sh PYTHON [options of uv pip compile]
set -eu
python=$1
shift

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$python" -m venv "$scratch"
"$scratch/bin/python" -m pip -q --disable-pip-version-check install uv

compile() { # one version for all Pythons, so that what is tested on one is what is installed on another
    UV_CUSTOM_COMPILE_COMMAND="make lock" "$scratch/bin/uv" pip compile -q --universal --python-version 3.11 \
        --fork-strategy fewest --all-extras --no-annotate -o requirements.lock "$@" pyproject.toml
}

# onnxruntime is sometimes released without onnxruntime-gpu: both stay at the newest version that both have.
compile "$@"
sed -n 's/^onnxruntime-gpu==\([^ ]*\).*/onnxruntime==\1/p' requirements.lock >"$scratch/same.txt"
compile -c "$scratch/same.txt"
