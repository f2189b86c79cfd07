#!/usr/bin/env bash
# The whole test suite and the linter, in the same .venv as the quickstart. Arguments go to pytest.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
exec .venv/bin/python -m pytest "$@"
