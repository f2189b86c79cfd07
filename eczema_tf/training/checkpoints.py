"""The state of an interrupted training run in one file: plain arrays and JSON, no pickle."""

import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from eczema_tf.errors import RunError
from eczema_tf.files import replacing_file


def save_state(
    path: Path, model: keras.Model, best: list[np.ndarray], progress: dict[str, Any]
) -> None:
    """Writes everything that a resumed run needs, whole or not at all.

    Args:
        path: An .npz file.
        model: Compiled; its weights, dropout generators and optimizer are saved.
        best: The best weights so far, in the order of `model.weights`.
        progress: JSON-able.
    """
    arrays = {
        f"state_{place:05d}": variable.numpy()
        for place, variable in enumerate(_changing_variables(model))
    }
    arrays |= {f"best_{place:05d}": value for place, value in enumerate(best)}
    with replacing_file(path) as aside:
        np.savez(aside, progress=np.frombuffer(json.dumps(progress).encode(), "uint8"), **arrays)


def load_state(path: Path, model: keras.Model) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Restores a model from `save_state`.

    Returns:
        `progress` and the best weights.

    Raises:
        RunError: If the file does not fit the model, for instance because the configuration has
            changed.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            progress = json.loads(file["progress"].tobytes())
            states = [file[name] for name in sorted(file.files) if name.startswith("state_")]
            best = [file[name] for name in sorted(file.files) if name.startswith("best_")]
        for variable, value in zip(_changing_variables(model), states, strict=True):
            variable.assign(value)
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise RunError(
            f"{path}: does not fit this run ({error}); train into a new --run-dir"
        ) from error
    return progress, best


def copy_weights(model: keras.Model) -> list[np.ndarray]:
    """Copies all weights, in the order of `model.weights`, so that they stay what they are while training goes on."""
    return [np.copy(weight.numpy()) for weight in model.weights]


def _changing_variables(model: keras.Model) -> list[keras.Variable]:
    """Weights, seed generators and optimizer slots, in a fixed order; metrics start anew each epoch."""
    metrics = {id(variable) for variable in model.metrics_variables}
    return [*(v for v in model.variables if id(v) not in metrics), *model.optimizer.variables]
