"""Keras callbacks: validation AUROC, the best weights, a stop on a bad loss, resumable state."""

from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from eczema_tf.config import TrainConfig
from eczema_tf.data.pipeline import build_evaluation_dataset
from eczema_tf.errors import RunError
from eczema_tf.files import refusing
from eczema_tf.model.features import build_predictor
from eczema_tf.model.losses import build_losses
from eczema_tf.model.pooling import find_speaking_rows
from eczema_tf.schema import ECZEMA_HEADS, MODALITIES
from eczema_tf.training.checkpoints import Progress, copy_weights, load_state, save_state
from eczema_tf.training.data import TrainingData

MONITOR = "val_auroc_fusion"
_ADVICE = "lower train.learning_rate or train.clip_norm, or set train.mixed_precision to off"


class StopOnNonFiniteLoss(keras.callbacks.Callback):
    """Ends the run at the first loss that is NaN or infinite, naming the step."""

    epoch = 0

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
            place = f"step {batch + 1} of epoch {self.epoch + 1}"
            raise RunError(f"training loss is {loss} at {place}; {_ADVICE}")


class Validate(keras.callbacks.Callback):
    """Adds validation metrics to the logs of every epoch, all from one pass.

    They are the losses, and the AUROC of photo, text and fusion by case. Keras' own AUC metric
    approximates by thresholds and reads a soft label of 0.1 as positive, so it is computed exactly
    here.
    """

    def __init__(self, model: keras.Model, data: TrainingData, train: TrainConfig) -> None:
        super().__init__()
        self.predict = build_predictor(model)
        self.data, self.loss_weights = data, train.loss_weights.model_dump()
        self.batches = build_evaluation_dataset(data.inputs, data.val_rows, train.batch_size)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Adds the metrics to the logs."""
        if logs is not None:
            logs.update(self.compute_metrics())

    def compute_metrics(self) -> dict[str, float]:
        """Computes `val_loss`, `val_<head>_loss`, and `val_auroc_<modality>` where it is defined.

        The AUROC is not defined with one class only. A head is scored on the rows where its weight
        is not 0.

        Raises:
            RunError: If the loss is not finite, as after a last step that has spoilt the weights.
        """
        data, rows = self.data, self.data.val_rows
        logits = self.predict(self.batches)
        losses = {
            head: float(loss(data.targets[head][rows], logits[head], data.weights[head][rows]))
            for head, loss in build_losses(logits).items()
        }
        metrics = {"val_loss": sum(self.loss_weights[head] * losses[head] for head in losses)}
        metrics |= {f"val_{head}_loss": loss for head, loss in losses.items()}
        if not np.isfinite(metrics["val_loss"]):
            raise RunError(f"validation loss is {metrics['val_loss']}; {_ADVICE}")
        for modality, head in ECZEMA_HEADS.items():
            scored = data.weights[head][rows] > 0
            if modality == "fusion":
                # what is known shows only after training
                used = {name: data.inputs.present(name)[rows] for name in MODALITIES}
                scored &= find_speaking_rows(data.cases[rows], used, used)["fusion"]
            auroc = compute_case_auroc(
                logits[head][scored, 0], data.positive[rows][scored], data.cases[rows][scored]
            )
            if auroc is not None:
                metrics[f"val_auroc_{modality}"] = auroc
        return metrics


def compute_case_auroc(logits: np.ndarray, positive: np.ndarray, cases: np.ndarray) -> float | None:
    """Computes the AUROC of the cases' mean logits.

    Args:
        logits: float (rows,).
        positive: bool (rows,), whether the row's case is positive.
        cases: (rows,), equal for the rows of one case.

    Returns:
        In [0, 1]; None with one class only.
    """
    _, case, counts = np.unique(cases, return_inverse=True, return_counts=True)
    mean_logits = np.bincount(case, logits) / counts  # (cases,)
    case_positive = np.bincount(case, positive) / counts > 0.5
    if case_positive.all() or not case_positive.any():
        return None
    return float(roc_auc_score(case_positive, mean_logits))


class KeepBest(keras.callbacks.Callback):
    """Keeps the weights of the best epoch, stops in time, and can be resumed.

    Training stops when no epoch was better for `patience` epochs. After every epoch, all that
    changes is written to `path`: weights, the state of the dropout generators, the optimizer, the
    best weights (if they may differ from the last) and how long ago they were. The file is replaced
    whole or not at all, so a kill at any moment loses at most one epoch.

    Args:
        path: Path of the checkpoint.
        patience: Epochs without a better score.
        last: Whether every epoch counts as better than the one before: all epochs are run and the
            last one is kept. No score is needed then.
    """

    def __init__(self, path: Path, patience: int, *, last: bool = False) -> None:
        super().__init__()
        self.path, self.patience, self.last = path, patience, last
        self.best: list[np.ndarray] = []
        self.progress = Progress()

    def resume(self, model: keras.Model) -> int:
        """Restores an interrupted run, if there is one; returns the epoch to continue with."""
        self.set_model(model)
        if self.path.exists():
            self.progress, self.best = load_state(self.path, model)
        return self.progress.epochs_done

    @property
    def finished(self) -> bool:
        """Whether patience has run out."""
        return self.progress.epochs_done - 1 - self.progress.best_epoch >= self.patience

    def start_from(self, metrics: Mapping[str, float]) -> None:
        """Takes the weights before the first epoch as the best so far."""
        self.progress.best_score = metrics.get(MONITOR, -np.inf)
        self.best = copy_weights(self.model)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Compares, keeps, saves and perhaps stops.

        Raises:
            RunError: If a score is to decide and there is none.
        """
        logs, progress = logs or {}, self.progress
        score = logs.get(MONITOR)
        if self.last:
            progress.best_epoch, self.best = epoch, []
        elif score is None:
            raise RunError(
                "early stopping needs validation cases with and without eczema; give a larger val"
                " split"
            )
        elif score > progress.best_score:
            progress.best_epoch, progress.best_score = epoch, score
            self.best = copy_weights(self.model)
        progress.epochs_done = epoch + 1
        progress.history.append(
            {"epoch": epoch + 1, **{key: float(value) for key, value in logs.items()}}
        )
        save_state(self.path, self.model, self.best, progress)
        if self.finished:
            self.model.stop_training = True

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Puts the best weights into the model, if they are not the last ones."""
        if self.best:
            self.model.set_weights(self.best)


class WriteScalars(keras.callbacks.Callback):
    """Writes the metrics of every epoch, and the learning rate, for TensorBoard.

    Training and validation are two curves with one name. Keras' own callback also prepares metrics
    at every step, whether they are written or not, which takes a fifth of a step on cached
    features.

    Args:
        folder: Folder of the stage's logs.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        with refusing(folder):
            self.writers = {
                split: tf.summary.create_file_writer(str(folder / split))
                for split in ("train", "validation")
            }

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Writes the epoch, so that it can be watched."""
        metrics = {**(logs or {}), "learning_rate": float(self.model.optimizer.learning_rate)}
        with refusing(self.folder):
            for name, value in metrics.items():
                split = "validation" if name.startswith("val_") else "train"
                with self.writers[split].as_default():
                    tf.summary.scalar(f"epoch_{name.removeprefix('val_')}", value, step=epoch)
            for writer in self.writers.values():
                writer.flush()
