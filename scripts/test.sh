#!/usr/bin/env bash
# Runs the whole test suite, the linter, the type checker and the spell checker, in the same .venv as the quickstart. Arguments go to pytest. There are two processes, each
# with one test file at a time, the costly ones first: fixtures that train a model are made once, and tests mostly wait for graphs to be built, which takes one core.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/codespell
# one thread per process: more would wait for each other
export OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1
exec .venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
