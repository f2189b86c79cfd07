"""The state of an interrupted training run in one file: plain arrays and JSON, no pickle."""

import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import keras
import numpy as np

from eczema_tf.errors import RunError
from eczema_tf.files import replacing_file

EpochMetrics = dict[str, float]  # "epoch", counted from 1, and whatever Keras logged


@dataclass
class Progress:
    """How far a stage of training has come."""

    epochs_done: int = 0
    best_epoch: int = -1  # counted from 0; -1: the weights before the first
    best_score: float = -np.inf  # stays so where no score decides
    history: list[EpochMetrics] = field(default_factory=list)


def save_state(
    path: Path, model: keras.Model, best: Sequence[np.ndarray], progress: Progress
) -> None:
    """Writes everything that a resumed run needs, whole or not at all.

    Args:
        path: An .npz file.
        model: Compiled; its weights, dropout generators and optimizer are saved.
        best: The best weights so far, in the order of `model.weights`.
        progress: How far the run has come.
    """
    arrays = {
        f"state_{index:05d}": variable.numpy()
        for index, variable in enumerate(_changing_variables(model))
    }
    arrays |= {f"best_{index:05d}": value for index, value in enumerate(best)}
    text = np.frombuffer(json.dumps(asdict(progress)).encode(), "uint8")
    with replacing_file(path) as aside:
        np.savez(aside, progress=text, **arrays)


def load_state(path: Path, model: keras.Model) -> tuple[Progress, list[np.ndarray]]:
    """Restores a model from `save_state`.

    Returns:
        The progress and the best weights.

    Raises:
        RunError: If the file does not fit the model, for instance because the configuration has
            changed.
    """
    try:
        progress = read_progress(path)
        with np.load(path, allow_pickle=False) as file:
            states = [file[name] for name in sorted(file.files) if name.startswith("state_")]
            best = [file[name] for name in sorted(file.files) if name.startswith("best_")]
        for variable, value in zip(_changing_variables(model), states, strict=True):
            variable.assign(value)
    except (ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(
            f"{path}: does not fit this run ({error}); train into a new --run-dir"
        ) from error
    return progress, best


def read_progress(path: Path) -> Progress:
    """Reads from `save_state`'s file how far the stage has come."""
    with np.load(path, allow_pickle=False) as file:
        return Progress(**json.loads(file["progress"].tobytes()))


def copy_weights(model: keras.Model) -> list[np.ndarray]:
    """Copies all weights, in the order of `model.weights`; training does not change the copies."""
    return [np.copy(weight.numpy()) for weight in model.weights]


def _changing_variables(model: keras.Model) -> list[keras.Variable]:
    """Weights, seed generators and optimizer slots, in a fixed order.

    Metrics are not among them: they start again each epoch.
    """
    metrics = {id(variable) for variable in model.metrics_variables}
    return [*(v for v in model.variables if id(v) not in metrics), *model.optimizer.variables]
