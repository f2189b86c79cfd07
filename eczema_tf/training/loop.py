"""One stage of training: compile, fit, keep the best epoch."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras

from eczema_tf.config import AugmentConfig, Config, TrainConfig
from eczema_tf.data.pipeline import SmallTalk, build_training_dataset
from eczema_tf.model.branches import TEXT_WINDOWS
from eczema_tf.model.losses import build_losses
from eczema_tf.training.callbacks import KeepBest, StopOnNonFiniteLoss, Validate, WriteScalars
from eczema_tf.training.checkpoints import EpochMetrics
from eczema_tf.training.data import TrainingData
from eczema_tf.training.device import is_on


@dataclass(frozen=True)
class Stage:
    """What differs from one stage to the next.

    Attributes:
        name: Name of its checkpoint and TensorBoard folder. A checkpoint of that name is resumed.
        epochs: Maximum number of epochs.
        learning_rate: The peak learning rate.
        augment: Changes to the photos, if the inputs contain pixels that are trained on.
        keep_start: Whether the weights before the first epoch may win (fine-tuning), or are random
            and must not be chosen by luck.
        views: How many views of their photos the inputs contain besides the photos themselves.
        rates: By path of a variable, the share of the learning rate that it gets; 1 for others.
    """

    name: str
    epochs: int
    learning_rate: float
    augment: AugmentConfig | None = None
    keep_start: bool = False
    views: int = 0
    rates: Mapping[str, float] = field(default_factory=dict)


def train_stage(
    model: keras.Model, data: TrainingData, stage: Stage, config: Config, run_dir: Path
) -> list[EpochMetrics]:
    """Trains a model and leaves it with the weights of its best epoch.

    Args:
        model: Takes what `data.inputs` gives, returns logits by head.
        data: Rows, targets and weights.
        stage: Epochs, learning rate, augmentation.
        config: Seed, batch size, schedule, patience.
        run_dir: The run folder.

    Returns:
        The metrics of each epoch.

    Raises:
        RunError: If the loss is not finite.
    """
    train, keep_last, validated = config.train, config.train.keep == "last", len(data.val_rows) > 0
    compile_for_training(model, data, stage, train)
    checkpoint = run_dir / "checkpoints" / f"{stage.name}.npz"
    keep_best = KeepBest(checkpoint, train.patience, last=keep_last)
    first_epoch = keep_best.resume(model)
    if first_epoch >= stage.epochs or keep_best.finished:
        keep_best.on_train_end()
        return keep_best.progress.history

    tensorboard = run_dir / "tensorboard" / stage.name
    callbacks = [StopOnNonFiniteLoss(), keep_best, WriteScalars(tensorboard)]
    if validated:
        callbacks.insert(0, validate := Validate(model, data, train))  # for `keep_best`
        if first_epoch == 0 and stage.keep_start:
            keep_best.start_from(validate.compute_metrics())
    batches = build_training_dataset(
        data.inputs,
        data.targets,
        data.weights,
        data.train_rows,
        batch_size=train.batch_size,
        epochs=range(first_epoch, stage.epochs),
        seed=config.seed,
        augment=stage.augment,
        views=stage.views,
        small_talk=_choose_small_talk(data, train.small_talk),
    )
    model.fit(
        batches,
        epochs=stage.epochs,
        initial_epoch=first_epoch,
        steps_per_epoch=data.count_steps(train.batch_size),
        callbacks=callbacks,
        shuffle=False,
        verbose=1 if sys.stdout.isatty() else 2,  # progress bars, or a line per epoch
    )
    return keep_best.progress.history


def _choose_small_talk(data: TrainingData, share: float) -> SmallTalk | None:
    """Returns what is appended to texts, if their windows are at hand and some say nothing."""
    if share and len(data.talk_rows) and TEXT_WINDOWS in data.inputs.columns:
        return SmallTalk(TEXT_WINDOWS, data.talk_rows, share)
    return None


class LayerwiseAdamW(keras.optimizers.AdamW):
    """AdamW (Loshchilov and Hutter 2019) with a learning rate of its own for each variable.

    Weight decay uses the common rate.

    Args:
        rates: By path of a variable, the share of the learning rate that it gets; 1 for others.
    """

    def __init__(self, *arguments: Any, rates: Mapping[str, float], **options: Any):
        super().__init__(*arguments, **options)
        self.rates = rates

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Changes a variable at its own rate."""
        # `variable` is TensorFlow's own, which has no path
        known = self._trainable_variables[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * self.rates.get(known.path, 1.0))


def compile_for_training(
    model: keras.Model, data: TrainingData, stage: Stage, train: TrainConfig
) -> None:
    """Compiles with AdamW, linear warm-up, cosine decay to 0 and clipped gradients.

    It makes all variables, so that a checkpoint can be read.
    """
    epoch_steps = data.count_steps(train.batch_size)
    total_steps = stage.epochs * epoch_steps
    warmup_steps = min(int(train.warmup_epochs * epoch_steps), total_steps // 2)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=stage.learning_rate / 10 if warmup_steps else stage.learning_rate,
        decay_steps=max(total_steps - warmup_steps, 1),
        warmup_target=stage.learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )
    model.compile(
        optimizer=LayerwiseAdamW(
            schedule,
            rates=stage.rates,
            weight_decay=train.weight_decay,
            global_clipnorm=train.clip_norm,
        ),
        loss=build_losses(model.output),
        loss_weights={head: getattr(train.loss_weights, head) for head in model.output},
        jit_compile=is_on(train.xla),  # on a CPU it makes these networks six times slower
    )
    model.optimizer.build(model.trainable_variables)
    # Computing a loss once makes the variables of its running means now: made within the first
    # step, they would cause it to be traced twice. Logits have the shapes of the targets.
    row = data.train_rows[:1]
    targets = {head: values[row] for head, values in data.targets.items()}
    weights = {head: values[row] for head, values in data.weights.items()}
    model.compute_loss(y=targets, y_pred=targets, sample_weight=weights)
