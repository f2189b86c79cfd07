"""Keras callbacks: the validation AUROC that decides, the best weights, a stop on a loss that is not finite, and resumable state."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from eczema_tf.errors import RunError
from eczema_tf.model.features import predict_logits
from eczema_tf.model.losses import build_losses
from eczema_tf.schema import ECZEMA_HEADS
from eczema_tf.training.checkpoints import copy_weights, load_state, save_state

MONITOR = "val_auroc_fusion"


class StopOnNonFiniteLoss(keras.callbacks.Callback):
    """Ends the run at the first loss that is NaN or infinite, naming the step."""

    def __init__(self):
        super().__init__()
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Remembers the epoch for the message."""
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Looks at the mean loss so far, which one bad step makes bad.

        Raises:
            RunError: If it is not finite.
        """
        loss = (logs or {}).get("loss", 0.0)
        if not np.isfinite(loss):
            raise RunError(
                f"training loss is {loss} at step {batch + 1} of epoch {self.epoch + 1}; "
                "lower train.learning_rate or train.clip_norm, or set train.mixed_precision to off"
            )


class Validate(keras.callbacks.Callback):
    """Adds validation losses, and the AUROC of photo, text and fusion by case, to the logs of every epoch, all from one pass.

    Keras' own AUC metric approximates by thresholds and reads a soft label of 0.1 as positive, so
    it is computed exactly here.
    """

    def __init__(
        self,
        dataset: tf.data.Dataset,
        targets: Mapping[str, np.ndarray],
        weights: Mapping[str, np.ndarray],
        loss_weights: Mapping[str, float],
        labels: np.ndarray,
        cases: np.ndarray,
    ):
        """Takes what the figures need, all of the validation rows in the order of `dataset`.

        Args:
            dataset: Evaluation batches.
            targets: By head, (rows, ...).
            weights: By head, (rows,); a head is scored on the rows where its weight is not 0.
            loss_weights: By head, in the total loss.
            labels: bool (rows,), whether the row's case is positive.
            cases: (rows,), equal for the rows of one case.
        """
        super().__init__()
        self.dataset, self.targets, self.weights, self.loss_weights = (
            dataset,
            targets,
            weights,
            loss_weights,
        )
        self.labels, self.cases, self.losses = labels, cases, build_losses()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Adds the figures to the logs."""
        if logs is not None:
            logs.update(self.compute_figures())

    def compute_figures(self) -> dict[str, float]:
        """Returns `val_loss`, `val_<head>_loss`, and `val_auroc_<modality>` where it is defined (not with one class only)."""
        logits = predict_logits(self.model, self.dataset)
        return {**self._compute_losses(logits), **self._compute_aurocs(logits)}

    def _compute_losses(self, logits: Mapping[str, np.ndarray]) -> dict[str, float]:
        losses = {
            head: float(loss(self.targets[head], logits[head], self.weights[head]))
            for head, loss in self.losses.items()
        }
        total = sum(self.loss_weights[head] * loss for head, loss in losses.items())
        return {"val_loss": total, **{f"val_{head}_loss": loss for head, loss in losses.items()}}

    def _compute_aurocs(self, logits: Mapping[str, np.ndarray]) -> dict[str, float]:
        aurocs = {}
        for modality, head in ECZEMA_HEADS.items():
            auroc = _case_auroc(logits[head][:, 0], self.labels, self.cases, self.weights[head] > 0)
            if auroc is not None:
                aurocs[f"val_auroc_{modality}"] = auroc
        return aurocs


def _case_auroc(
    logits: np.ndarray, labels: np.ndarray, cases: np.ndarray, seen: np.ndarray
) -> float | None:
    _, case, counts = np.unique(cases[seen], return_inverse=True, return_counts=True)
    if not len(counts):
        return None
    mean_logits = np.bincount(case, logits[seen]) / counts
    positive = np.bincount(case, labels[seen]) / counts > 0.5
    return (
        float(roc_auc_score(positive, mean_logits)) if 0 < positive.sum() < len(positive) else None
    )


class KeepBest(keras.callbacks.Callback):
    """Keeps the weights of the best epoch, stops when there was no better one for `patience` epochs, and can be resumed.

    After every epoch all that changes is written to `path`: weights, the state of the dropout
    generators, the optimizer, the best weights (if they may be others than the last) and how long
    ago they were. The file is replaced whole or not at all, so a kill at any moment loses at most
    one epoch.
    """

    def __init__(self, path: Path, patience: int, *, last: bool = False):
        """Takes what decides.

        Args:
            path: Of the checkpoint.
            patience: Epochs without a better score.
            last: Whether every epoch counts as better than the one before: all epochs are run and
                the last one is kept. No score is needed then.
        """
        super().__init__()
        self.path, self.patience, self.last = path, patience, last
        self.best: list[np.ndarray] = []
        self.progress: dict[str, Any] = {
            "epochs_done": 0,
            "best_epoch": -1,
            "best_score": -np.inf,
            "history": [],
        }

    def resume(self, model: keras.Model) -> int:
        """Restores the state of an interrupted run, if there is one; returns the epoch to go on with."""
        if self.path.exists():
            self.progress, self.best = load_state(self.path, model)
        return self.progress["epochs_done"]

    @property
    def finished(self) -> bool:
        """Whether patience has run out."""
        return self.progress["epochs_done"] - 1 - self.progress["best_epoch"] >= self.patience

    def start_from(self, scores: Mapping[str, float]) -> None:
        """Takes the weights before the first epoch as the best so far."""
        self.progress["best_score"] = scores.get(MONITOR, -np.inf)
        self.best = copy_weights(self.model)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Compares, keeps, saves and perhaps stops."""
        logs = logs or {}
        if not self.last and MONITOR not in logs:
            raise RunError(
                "early stopping needs validation cases with and without eczema; give a larger val"
                " split"
            )
        if self.last or logs[MONITOR] > self.progress["best_score"]:
            self.progress.update(best_epoch=epoch, best_score=logs.get(MONITOR))
            self.best = [] if self.last else copy_weights(self.model)
        self.progress["epochs_done"] = epoch + 1
        self.progress["history"].append(
            {"epoch": epoch + 1, **{key: float(value) for key, value in logs.items()}}
        )
        save_state(self.path, self.model, self.best, self.progress)
        if self.finished:
            self.model.stop_training = True

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Goes back to the best weights."""
        self.restore_best()

    def restore_best(self) -> None:
        """Puts the best weights into the model, if they are not the last ones."""
        if self.best:
            for weight, value in zip(self.model.weights, self.best, strict=True):
                weight.assign(value)


class WriteScalars(keras.callbacks.Callback):
    """Writes the figures of every epoch for TensorBoard, training and validation as two curves of one name, and the learning rate.

    Keras' own callback also prepares figures at every step, whether they are written or not: a
    fifth of a step on cached features.
    """

    def __init__(self, folder: Path):
        """Takes the stage's folder of logs."""
        super().__init__()
        self.writers = {
            split: tf.summary.create_file_writer(str(folder / split))
            for split in ("train", "validation")
        }

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Writes the epoch, so that it can be watched."""
        figures = {**(logs or {}), "learning_rate": float(self.model.optimizer.learning_rate)}
        for name, value in figures.items():
            with self.writers["validation" if name.startswith("val_") else "train"].as_default():
                tf.summary.scalar(f"epoch_{name.removeprefix('val_')}", value, step=epoch)
        for writer in self.writers.values():
            writer.flush()
