"""The two stages of training.

Heads (and encoders from scratch) come first, then, if asked for, fine-tuning of pretrained
encoders.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import keras
import numpy as np

from eczema_tf.config import Config
from eczema_tf.data.cache import ArrayCache
from eczema_tf.errors import ConfigError
from eczema_tf.model.features import cached_encoders, compute_features
from eczema_tf.model.multimodal import ENCODER_LAYERS, Encoders, heads_of
from eczema_tf.schema import ECZEMA_HEADS
from eczema_tf.training.checkpoints import EpochMetrics
from eczema_tf.training.data import TrainingData
from eczema_tf.training.loop import Stage, train_stage


@dataclass(frozen=True)
class History:
    """The metrics of each epoch, by stage."""

    heads: list[EpochMetrics]
    fine_tune: list[EpochMetrics] = field(default_factory=list)

    def best(self, metric: str) -> float:
        """Returns the largest value that a metric had after any epoch."""
        return max(epoch[metric] for epoch in (*self.heads, *self.fine_tune))


def train_model(
    model: keras.Model, encoders: Encoders, data: TrainingData, config: Config, run_dir: Path
) -> History:
    """Trains all stages and leaves the model with the best weights.

    Args:
        model: With preset weights loaded.
        encoders: Its specs.
        data: With pixels (or embeddings) and tokens as inputs.
        config: Of the run.
        run_dir: Of the run.
    """
    train, augment = config.train, config.preprocess.augment

    # === Heads, and encoders from scratch: pretrained ones are frozen, their features cached ===
    for modality in encoders.pretrained:
        model.get_layer(ENCODER_LAYERS[modality]).trainable = False
    cached = cached_encoders(train, encoders, data.inputs.absent, fine_tuned=False)
    features = compute_features(model, data.inputs, cached, ArrayCache(train.cache_folder))
    stage = Stage("heads", train.epochs, train.learning_rate)
    if "image" not in encoders.pretrained:
        stage = replace(stage, augment=augment)
    heads, heads_data = heads_of(model, cached), replace(data, inputs=features)
    history = History(train_stage(heads, heads_data, stage, config, run_dir))

    # === Fine-tuning of pretrained encoders ===
    tuning = train.fine_tune
    if tuning.epochs:
        for modality, first in (("image", tuning.image_from), ("text", tuning.text_from)):
            if first is not None and modality in encoders.pretrained:
                encoder = model.get_layer(ENCODER_LAYERS[modality])
                unfreeze_from(encoder, first, f"train.fine_tune.{modality}_from")
        stage = Stage("fine_tune", tuning.epochs, tuning.learning_rate, augment, keep_start=True)
        tuned = train_stage(model, data, stage, config, run_dir)
        history = replace(history, fine_tune=tuned)

    if train.balance_classes:
        restore_prevalence(model, data.prevalence)
    return history


def unfreeze_from(encoder: keras.Model, first: str, key: str) -> None:
    """Makes an encoder trainable from one layer on.

    Batch norm stays frozen, since its statistics are the preset's.

    Args:
        encoder: A backbone, its layers in order from input to output.
        first: Name, or beginning of the name, of the first layer to train.
        key: Name of the setting, for the error.

    Raises:
        ConfigError: If no layer is called so.
    """
    # KerasHub's vision transformers hold all of their blocks in one layer
    blocks = [
        block
        for layer in encoder.layers
        for block in getattr(layer, "encoder_layers", None) or [layer]
    ]
    matches = [index for index, block in enumerate(blocks) if block.name.startswith(first)]
    if not matches:
        allowed = ", ".join(block.name for block in blocks if block.weights)
        raise ConfigError(f"{key}: no layer's name begins with {first!r}; allowed: {allowed}")
    encoder.trainable = True
    for index, block in enumerate(blocks):
        is_batch_norm = isinstance(block, keras.layers.BatchNormalization)
        block.trainable = index >= matches[0] and not is_batch_norm


def restore_prevalence(model: keras.Model, prevalence: float) -> None:
    """Moves the biases of the eczema heads so that probabilities fit the training prevalence again.

    Balanced labels train the log-odds of a population that is half eczema; the true ones differ by
    the constant logit(prevalence) (King and Zeng 2001, prior correction). Ranks do not change.

    Args:
        model: Trained on labels from `data.balance_labels`.
        prevalence: In (0, 1).
    """
    for head in ECZEMA_HEADS.values():
        layer = model.get_layer(head)
        if isinstance(layer, keras.layers.Dense):  # late fusion is an average of such
            layer.bias.assign(layer.bias.numpy() + np.log(prevalence / (1 - prevalence)))
