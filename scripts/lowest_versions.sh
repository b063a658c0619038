#!/usr/bin/env bash
# Runs the default tests with the lowest version of every dependency that setup.py allows, in an environment of its own.
#
#   scripts/lowest_versions.sh [arguments for pytest]
#
# PYTHON=python3.12 takes another Python than 3.11 (there is no TensorFlow 2.18 for 3.13). EXTRAS=dev,beam,dedup,search,sentences,serve leaves
# out the export extra, whose onnx needs newer versions of numpy and scipy than all else. The torch, parity and gpu extras are not in
# it: they bring gigabytes, and parity's torch is pinned.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

PYTHON="${PYTHON:-python3.11}"
EXTRAS="${EXTRAS:-dev,beam,dedup,export,search,sentences,serve}"
VENV="$ROOT/.venv-lowest"
[[ "${1:-}" != --help ]] || { usage && exit; }
python="$(find_python)"
say "Making $VENV with $("$python" --version)"
"$python" -m venv --clear "$VENV"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check uv
cd "$ROOT"
"$VENV/bin/uv" pip install --quiet --python "$VENV/bin/python" --resolution lowest-direct -e ".[$EXTRAS]"
"$VENV/bin/uv" pip list --python "$VENV/bin/python"
say "pytest"
"$VENV/bin/python" -m pytest -q "$@"
