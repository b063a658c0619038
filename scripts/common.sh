# Sourced by the other scripts: where things are, how errors are reported, and the virtual environment they share.
# shellcheck shell=bash

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$ROOT/.venv"
export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-3}"

# fail MESSAGE: one sentence on stderr and exit code 2, as for every usage error.
fail() {
  echo "$(basename "$0"): error: $*" >&2
  exit 2
}

# usage: the comment at the head of the script that was called.
usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "$0"; }

say() { printf '\n== %s\n' "$*"; }

# Every candidate is really run: version managers put launchers on the PATH for Pythons that are not installed.
find_python() {
  local name
  for name in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
    if "$name" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  fail "no Python 3.10 to 3.13 at ${PYTHON:-python3}: run 'sudo apt-get install python3 python3-venv', or set PYTHON=/path/to/python3"
}

# make_environment [EXTRA...]: $VENV with the project and these extras of setup.py. Once that has worked, nothing is downloaded
# again until setup.py changes. The project is linked (pip -e), so edits to it count at once.
make_environment() {
  local python stamp extra missing=
  if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    python="$(find_python)"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
      fail "$python cannot make virtual environments: run 'sudo apt-get install python3-venv'"
    say "Making $VENV with $("$python" --version)"
    "$python" -m venv --clear "$VENV"
  fi
  stamp="$VENV/.installed-$(cksum <"$ROOT/setup.py" | cut -d' ' -f1)"
  for extra in base "$@"; do
    grep -qsx "$extra" "$stamp" || missing=1
  done
  [[ -n "$missing" ]] || return 0
  say "Installing (TensorFlow is large: this takes some minutes)"
  extra="$(IFS=,; echo "$*")"
  (cd "$ROOT" && "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -e ".${extra:+[$extra]}")
  printf '%s\n' base "$@" >>"$stamp"
}
