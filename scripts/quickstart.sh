#!/usr/bin/env bash
# From nothing to a trained, evaluated and exported model: makes .venv, installs the requirements and trains on built-in data.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
exec .venv/bin/python -m eczema_tf.train "$@"
