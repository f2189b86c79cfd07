"""One stage of training: compile, fit, keep the best epoch."""

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from eczema_tf.config import AugmentConfig, TrainConfig
from eczema_tf.data.pipeline import build_training_dataset
from eczema_tf.errors import DataError
from eczema_tf.model.losses import build_losses
from eczema_tf.training.callbacks import KeepBest, StopOnNonFiniteLoss, Validate, WriteScalars
from eczema_tf.training.checkpoints import EpochMetrics
from eczema_tf.training.data import TrainingData
from eczema_tf.training.device import use_xla


@dataclass(frozen=True)
class Stage:
    """What differs from one stage to the next.

    Attributes:
        name: For its checkpoint and TensorBoard folder. A checkpoint of that name is resumed.
        epochs: At most.
        learning_rate: The peak.
        augment: Changes to the photos, if the inputs hold pixels that are trained on.
        keep_start: Whether the weights before the first epoch may win (fine-tuning), or are random
            and must not be chosen by luck.
    """

    name: str
    epochs: int
    learning_rate: float
    augment: AugmentConfig | None = None
    keep_start: bool = False


def train_stage(
    model: keras.Model,
    data: TrainingData,
    stage: Stage,
    train: TrainConfig,
    *,
    seed: int,
    run_dir: Path,
    verbose: int = 1,
) -> list[EpochMetrics]:
    """Trains a model and leaves it with the weights of its best epoch.

    Args:
        model: Takes what `data.inputs` gives, returns logits by head.
        data: Rows, targets and weights.
        stage: Epochs, learning rate, augmentation.
        train: Batch size, schedule, patience.
        seed: Of order and augmentation.
        run_dir: Of the run.
        verbose: 1 for progress bars, 2 for a line an epoch, 0 for none.

    Returns:
        The metrics of each epoch.

    Raises:
        DataError: If there is nothing to train or to validate on.
        RunError: If the loss is not finite.
    """
    keep_last = train.keep == "last"
    _check_classes("train", data, data.train_rows)
    if not keep_last or len(data.val_rows):
        _check_classes("val", data, data.val_rows)

    # === Compile, with all variables in place before a checkpoint is read ===
    steps = -(-len(data.train_rows) // train.batch_size)  # an epoch
    compile_for_training(model, train, stage.epochs * steps, steps, stage.learning_rate)
    keep_best = KeepBest(
        run_dir / "checkpoints" / f"{stage.name}.npz", train.patience, last=keep_last
    )
    keep_best.set_model(model)
    model.optimizer.build(model.trainable_variables)
    # Compute a loss once, so that its running means get their variables now: made within the first
    # step, they would have it traced twice. Logits have the shapes of the targets.
    row = data.train_rows[:1]
    targets = {head: values[row] for head, values in data.targets.items()}
    weights = {head: values[row] for head, values in data.weights.items()}
    model.compute_loss(y=targets, y_pred=targets, sample_weight=weights)

    # === Resume, or begin ===
    first_epoch = keep_best.resume(model)
    if first_epoch >= stage.epochs or keep_best.finished:
        keep_best.on_train_end()
        return keep_best.progress.history
    callbacks = [
        StopOnNonFiniteLoss(),
        keep_best,
        WriteScalars(run_dir / "tensorboard" / stage.name),
    ]
    if len(data.val_rows):
        validate = Validate(data, train)
        validate.set_model(model)
        callbacks.insert(0, validate)  # before `keep_best`, which looks at its metrics
        if first_epoch == 0 and stage.keep_start:
            keep_best.start_from(validate.compute_metrics())
    batches = build_training_dataset(
        data.inputs,
        data.targets,
        data.weights,
        data.train_rows,
        batch_size=train.batch_size,
        epochs=range(first_epoch, stage.epochs),
        seed=seed,
        augment=stage.augment,
    )
    model.fit(
        batches,
        epochs=stage.epochs,
        initial_epoch=first_epoch,
        steps_per_epoch=steps,
        callbacks=callbacks,
        shuffle=False,
        verbose=verbose,
    )
    return keep_best.progress.history


def compile_for_training(
    model: keras.Model,
    train: TrainConfig,
    total_steps: int,
    steps_per_epoch: int,
    learning_rate: float,
) -> None:
    """Compiles with AdamW, linear warm-up, cosine decay to 0 and clipped gradients."""
    warmup_steps = min(int(train.warmup_epochs * steps_per_epoch), total_steps // 2)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=learning_rate / 10 if warmup_steps else learning_rate,
        decay_steps=max(total_steps - warmup_steps, 1),
        warmup_target=learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )
    model.compile(
        optimizer=keras.optimizers.AdamW(
            schedule, weight_decay=train.weight_decay, global_clipnorm=train.clip_norm
        ),
        loss=build_losses(),
        loss_weights=train.loss_weights.model_dump(),
        jit_compile=use_xla(train),
    )


def _check_classes(split: str, data: TrainingData, rows: np.ndarray) -> None:
    positive = data.positive[rows][data.labelled[rows]]
    if not len(positive) or positive.all() or not positive.any():
        raise DataError(
            f"split {split}: needs cases with and without eczema, has {int(positive.sum())} with"
            f" and {int((~positive).sum())} without; give more cases or other split shares"
            " (split.train, split.val, split.test)"
        )
