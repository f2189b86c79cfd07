"""Keras callbacks: the validation AUROC that decides, the best weights, a stop on a loss that is not finite, and resumable state."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from eczema_tf.errors import RunError
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


class ValidationAuroc(keras.callbacks.Callback):
    """Adds the validation AUROC of photo, text and fusion, by case, to the logs of every epoch.

    Keras' own AUC metric approximates by thresholds and reads a soft label of 0.1 as positive, so it is computed exactly here.
    """

    def __init__(self, dataset: tf.data.Dataset, labels: np.ndarray, cases: np.ndarray, seen: Mapping[str, np.ndarray]):
        """Takes what a validation score needs.

        Args:
            dataset: Evaluation batches of the validation rows.
            labels: bool (rows,), whether the row's case is positive.
            cases: (rows,), equal for the rows of one case.
            seen: By "image", "text", "fusion": bool (rows,), the rows that the head is scored on.
        """
        super().__init__()
        self.dataset, self.labels, self.cases, self.seen = dataset, labels, cases, seen

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Adds the scores to the logs."""
        if logs is not None:
            logs.update(self.compute_scores())

    def compute_scores(self) -> dict[str, float]:
        """Returns the AUROC by `val_auroc_<modality>`, without those that are undefined (one class only)."""
        outputs = [self.model.predict_on_batch(batch) for batch in self.dataset]
        scores = {}
        for modality, head in ECZEMA_HEADS.items():
            logits = np.concatenate([output[head][:, 0] for output in outputs])
            score = _case_auroc(logits, self.labels, self.cases, self.seen[modality])
            if score is not None:
                scores[f"val_auroc_{modality}"] = score
        return scores


def _case_auroc(logits: np.ndarray, labels: np.ndarray, cases: np.ndarray, seen: np.ndarray) -> float | None:
    _, case, counts = np.unique(cases[seen], return_inverse=True, return_counts=True)
    if not len(counts):
        return None
    mean_logits = np.bincount(case, logits[seen]) / counts
    positive = np.bincount(case, labels[seen]) / counts > 0.5
    return float(roc_auc_score(positive, mean_logits)) if 0 < positive.sum() < len(positive) else None


class KeepBest(keras.callbacks.Callback):
    """Keeps the weights of the best epoch, stops when there was no better one for `patience` epochs, and can be resumed.

    After every epoch all that changes is written to `path`: weights, the state of the dropout generators, the optimizer, the best weights
    and how long ago they were. The file is replaced whole or not at all, so a kill at any moment loses at most one epoch.
    """

    def __init__(self, path: Path, patience: int, *, last: bool = False):
        """Takes what decides.

        Args:
            path: Of the checkpoint.
            patience: Epochs without a better score.
            last: Whether every epoch counts as better than the one before: all epochs are run and the last one is kept.
        """
        super().__init__()
        self.path, self.patience, self.last = path, patience, last
        self.best: list[np.ndarray] = []
        self.progress: dict[str, Any] = {"epochs_done": 0, "best_epoch": -1, "best_score": -np.inf, "history": []}

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
        if MONITOR not in logs:
            raise RunError("early stopping needs validation cases with and without eczema; give a larger val split")
        if self.last or logs[MONITOR] > self.progress["best_score"]:
            self.progress.update(best_epoch=epoch, best_score=logs[MONITOR])
            self.best = copy_weights(self.model)
        self.progress["epochs_done"] = epoch + 1
        self.progress["history"].append({"epoch": epoch + 1, **{key: float(value) for key, value in logs.items()}})
        save_state(self.path, self.model, self.best, self.progress)
        if self.finished:
            self.model.stop_training = True

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Goes back to the best weights."""
        self.restore_best()

    def restore_best(self) -> None:
        """Puts the best weights into the model."""
        if self.best:
            for weight, value in zip(self.model.weights, self.best, strict=True):
                weight.assign(value)
