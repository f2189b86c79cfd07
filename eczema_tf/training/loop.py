"""One stage of training: compile, fit, keep the best epoch."""

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from eczema_tf.config import AugmentConfig, Config
from eczema_tf.data.inputs import Inputs
from eczema_tf.data.pipeline import build_evaluation_dataset, build_training_dataset
from eczema_tf.errors import DataError
from eczema_tf.model.losses import build_losses
from eczema_tf.schema import ECZEMA_HEADS
from eczema_tf.training.callbacks import KeepBest, StopOnNonFiniteLoss, ValidationAuroc
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
    val_rows: np.ndarray


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
        name: Of the stage, for its checkpoint and TensorBoard folder. A checkpoint of that name is resumed.
        epochs: At most.
        learning_rate: The peak.
        augment: Changes to the photos, if `data.inputs` holds pixels that are trained on.
        run_dir: Of the run.
        keep_start: Whether the weights before the first epoch may win (fine-tuning), or are random and must not be chosen by luck.
        verbose: 1 for progress bars, 2 for a line an epoch, 0 for none.

    Returns:
        One dictionary of figures an epoch.

    Raises:
        DataError: If there is nothing to train or to validate on.
        RunError: If the loss is not finite.
    """
    _check_rows(data)
    steps = -(-len(data.train_rows) // config.train.batch_size)
    compile_for_training(model, config, epochs * steps, steps, learning_rate)
    keep_best = KeepBest(run_dir / "checkpoints" / f"{name}.npz", config.train.patience, last=config.train.keep == "last")
    keep_best.set_model(model)
    model.optimizer.build(model.trainable_variables)
    first_epoch = keep_best.resume(model)
    if first_epoch >= epochs or keep_best.finished:
        keep_best.restore_best()
        return keep_best.progress["history"]
    train = build_training_dataset(
        data.inputs, data.targets, data.weights, data.train_rows, batch_size=config.train.batch_size,
        epochs=range(first_epoch, epochs), seed=config.seed, augment=augment,
    )  # fmt: skip
    val_inputs = build_evaluation_dataset(data.inputs, data.val_rows, config.train.batch_size)
    validation = _build_validation(data, val_inputs)
    validation.set_model(model)
    if first_epoch == 0 and keep_start:
        keep_best.start_from(validation.compute_scores())
    callbacks = [
        validation,
        StopOnNonFiniteLoss(),
        keep_best,
        keras.callbacks.TensorBoard(run_dir / "tensorboard" / name, write_graph=False),
    ]
    model.fit(
        train, epochs=epochs, initial_epoch=first_epoch, steps_per_epoch=steps, callbacks=callbacks, shuffle=False, verbose=verbose,
        validation_data=_with_targets(val_inputs, data, config.train.batch_size),
    )  # fmt: skip
    return keep_best.progress["history"]


def compile_for_training(model: keras.Model, config: Config, total_steps: int, steps_per_epoch: int, learning_rate: float) -> None:
    """Compiles with AdamW, linear warm-up, cosine decay to 0 and clipped gradients."""
    warmup_steps = min(int(config.train.warmup_epochs * steps_per_epoch), total_steps // 2)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=learning_rate / 10 if warmup_steps else learning_rate,
        decay_steps=max(total_steps - warmup_steps, 1),
        warmup_target=learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )
    model.compile(
        optimizer=keras.optimizers.AdamW(schedule, weight_decay=config.train.weight_decay, global_clipnorm=config.train.clip_norm),
        loss=build_losses(),
        loss_weights=config.train.loss_weights.model_dump(),
        jit_compile=use_xla(config.train),
    )


def _build_validation(data: TrainingData, val_inputs: tf.data.Dataset) -> ValidationAuroc:
    rows = data.val_rows
    weights = {modality: data.weights[head][rows] > 0 for modality, head in ECZEMA_HEADS.items()}
    return ValidationAuroc(val_inputs, data.positive[rows], data.cases[rows], weights)


def _with_targets(val_inputs: tf.data.Dataset, data: TrainingData, batch_size: int) -> tf.data.Dataset:
    rows = data.val_rows
    answers = ({h: v[rows] for h, v in data.targets.items()}, {h: v[rows] for h, v in data.weights.items()})
    answers_dataset = tf.data.Dataset.from_tensor_slices(answers).batch(batch_size)
    return tf.data.Dataset.zip(val_inputs, answers_dataset).map(lambda inputs, answer: (inputs, *answer))


def _check_rows(data: TrainingData) -> None:
    for split, rows in (("train", data.train_rows), ("val", data.val_rows)):
        positive = data.positive[rows][data.labelled[rows]]
        if not len(positive) or positive.all() or not positive.any():
            raise DataError(
                f"split {split}: needs cases with and without eczema, has {int(positive.sum())} with and {int((~positive).sum())} without; "
                "give more cases or other split shares (split.train, split.val, split.test)"
            )
