# Makes .venv with everything in requirements.txt. Sourced by quickstart.sh and test.sh; set PYTHON to choose an interpreter.
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

# The stamp is written last: an interrupted installation is done again.
stamp=.venv/installed-requirements.txt
if ! cmp -s requirements.txt "$stamp"; then
  python=$(choose_python)
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  echo "installing requirements into .venv (about 3 GB, a few minutes) ..."
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
  cp requirements.txt "$stamp"
fi
