"""One stage of training: compile, fit, keep the best epoch."""

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from eczema_tf.config import AugmentConfig, Config
from eczema_tf.data.inputs import Inputs
from eczema_tf.data.pipeline import build_evaluation_dataset, build_training_dataset
from eczema_tf.errors import DataError
from eczema_tf.model.losses import build_losses
from eczema_tf.training.callbacks import KeepBest, StopOnNonFiniteLoss, Validate, WriteScalars
from eczema_tf.training.device import use_xla


@dataclass(frozen=True)
class TrainingData:
    """Everything a stage learns from."""

    inputs: Inputs
    targets: dict[str, np.ndarray]  # by head, all rows of the manifest
    weights: dict[str, np.ndarray]  # by head, all rows of the manifest
    positive: np.ndarray  # bool (rows,), for the validation AUROC
    labelled: np.ndarray  # bool (rows,)
    cases: np.ndarray  # (rows,)
    train_rows: np.ndarray
    val_rows: np.ndarray  # may be empty where the last epoch is kept


def train_stage(
    model: keras.Model,
    data: TrainingData,
    config: Config,
    *,
    name: str,
    epochs: int,
    learning_rate: float,
    augment: AugmentConfig | None,
    run_dir: Path,
    keep_start: bool = False,
    verbose: int = 1,
) -> list[dict[str, float]]:
    """Trains a model and leaves it with the weights of its best epoch.

    Args:
        model: Takes what `data.inputs` gives, returns logits by head.
        data: Rows, targets and weights.
        config: Batch size, schedule, patience.
        name: Of the stage, for its checkpoint and TensorBoard folder. A checkpoint of that name is
            resumed.
        epochs: At most.
        learning_rate: The peak.
        augment: Changes to the photos, if `data.inputs` holds pixels that are trained on.
        run_dir: Of the run.
        keep_start: Whether the weights before the first epoch may win (fine-tuning), or are random
            and must not be chosen by luck.
        verbose: 1 for progress bars, 2 for a line an epoch, 0 for none.

    Returns:
        One dictionary of figures an epoch.

    Raises:
        DataError: If there is nothing to train or to validate on.
        RunError: If the loss is not finite.
    """
    keep_last = config.train.keep == "last"
    _check_rows(data, validate=not keep_last or len(data.val_rows) > 0)
    steps = -(-len(data.train_rows) // config.train.batch_size)
    compile_for_training(model, config, epochs * steps, steps, learning_rate)
    keep_best = KeepBest(
        run_dir / "checkpoints" / f"{name}.npz", config.train.patience, last=keep_last
    )
    keep_best.set_model(model)
    model.optimizer.build(model.trainable_variables)
    _build_loss_metrics(model, data)
    first_epoch = keep_best.resume(model)
    if first_epoch >= epochs or keep_best.finished:
        keep_best.restore_best()
        return keep_best.progress["history"]
    train = build_training_dataset(
        data.inputs,
        data.targets,
        data.weights,
        data.train_rows,
        batch_size=config.train.batch_size,
        epochs=range(first_epoch, epochs),
        seed=config.seed,
        augment=augment,
    )
    validation = [_build_validation(data, config)] if len(data.val_rows) else []
    if first_epoch == 0 and keep_start and validation:
        validation[0].set_model(model)
        keep_best.start_from(validation[0].compute_figures())
    callbacks = [
        *validation,
        StopOnNonFiniteLoss(),
        keep_best,
        WriteScalars(run_dir / "tensorboard" / name),
    ]
    model.fit(
        train,
        epochs=epochs,
        initial_epoch=first_epoch,
        steps_per_epoch=steps,
        callbacks=callbacks,
        shuffle=False,
        verbose=verbose,
    )
    return keep_best.progress["history"]


def compile_for_training(
    model: keras.Model, config: Config, total_steps: int, steps_per_epoch: int, learning_rate: float
) -> None:
    """Compiles with AdamW, linear warm-up, cosine decay to 0 and clipped gradients."""
    warmup_steps = min(int(config.train.warmup_epochs * steps_per_epoch), total_steps // 2)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=learning_rate / 10 if warmup_steps else learning_rate,
        decay_steps=max(total_steps - warmup_steps, 1),
        warmup_target=learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )
    model.compile(
        optimizer=keras.optimizers.AdamW(
            schedule, weight_decay=config.train.weight_decay, global_clipnorm=config.train.clip_norm
        ),
        loss=build_losses(),
        loss_weights=config.train.loss_weights.model_dump(),
        jit_compile=use_xla(config.train),
    )


def _build_loss_metrics(model: keras.Model, data: TrainingData) -> None:
    """Computes a loss once: its running means get their variables now. Made within the first step, they would have it traced twice."""
    row = data.train_rows[:1]
    targets, weights = (
        {head: values[row] for head, values in arrays.items()}
        for arrays in (data.targets, data.weights)
    )
    model.compute_loss(
        y=targets, y_pred=targets, sample_weight=weights
    )  # logits have the shapes of the targets


def _build_validation(data: TrainingData, config: Config) -> Validate:
    rows = data.val_rows
    return Validate(
        build_evaluation_dataset(data.inputs, rows, config.train.batch_size),
        {head: values[rows] for head, values in data.targets.items()},
        {head: values[rows] for head, values in data.weights.items()},
        config.train.loss_weights.model_dump(),
        data.positive[rows],
        data.cases[rows],
    )


def _check_rows(data: TrainingData, *, validate: bool) -> None:
    for split, rows in (("train", data.train_rows), ("val", data.val_rows))[: 2 if validate else 1]:
        positive = data.positive[rows][data.labelled[rows]]
        if not len(positive) or positive.all() or not positive.any():
            raise DataError(
                f"split {split}: needs cases with and without eczema, has {int(positive.sum())}"
                f" with and {int((~positive).sum())} without; give more cases or other split shares"
                " (split.train, split.val, split.test)"
            )
