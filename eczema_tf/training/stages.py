"""The two stages: heads (and encoders from scratch) first, then, if asked for, fine-tuning of pretrained encoders."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np

from eczema_tf.config import Config
from eczema_tf.data.cache import ArrayCache
from eczema_tf.errors import ConfigError
from eczema_tf.model.features import compute_features, frozen_model
from eczema_tf.model.multimodal import Encoders
from eczema_tf.schema import ECZEMA_HEADS
from eczema_tf.training.loop import TrainingData, train_stage

ENCODER_LAYERS = {"image": "image_encoder", "text": "text_encoder"}


def train_model(
    model: keras.Model,
    encoders: Encoders,
    data: TrainingData,
    config: Config,
    run_dir: Path,
    verbose: int = 1,
) -> dict:
    """Trains all stages and leaves the model with the best weights.

    Args:
        model: With preset weights loaded.
        encoders: Its specs.
        data: With pixels (or embeddings) and tokens as inputs.
        config: Of the run.
        run_dir: Of the run.
        verbose: As in `train_stage`.

    Returns:
        The history of each stage by name.
    """
    frozen = encoders.pretrained
    for modality in frozen:
        model.get_layer(ENCODER_LAYERS[modality]).trainable = False
    history = {"heads": _train_heads(model, frozen, data, config, run_dir, verbose)}
    if config.train.fine_tune.epochs:
        history["fine_tune"] = _fine_tune(model, frozen, data, config, run_dir, verbose)
    if config.train.balance_classes:
        _restore_prevalence(model, data)
    return history


def _train_heads(model, frozen, data, config, run_dir, verbose) -> list:
    cached = frozen if config.train.cache_features else frozenset()
    cached |= data.inputs.absent  # or every step would encode blank photos
    inputs = compute_features(model, data.inputs, cached, ArrayCache(config.train.cache_folder))
    return train_stage(
        frozen_model(model, cached),
        replace(data, inputs=inputs),
        config,
        name="heads",
        epochs=config.train.epochs,
        learning_rate=config.train.learning_rate,
        augment=config.preprocess.augment if "image" not in frozen else None,
        run_dir=run_dir,
        verbose=verbose,
    )


def _fine_tune(model, frozen, data, config, run_dir, verbose) -> list:
    starts = {"image": config.train.fine_tune.image_from, "text": config.train.fine_tune.text_from}
    for modality, first in starts.items():
        if first is not None and modality in frozen:
            unfreeze_from(
                model.get_layer(ENCODER_LAYERS[modality]), first, f"train.fine_tune.{modality}_from"
            )
    return train_stage(
        model,
        data,
        config,
        name="fine_tune",
        epochs=config.train.fine_tune.epochs,
        learning_rate=config.train.fine_tune.learning_rate,
        augment=config.preprocess.augment,
        keep_start=True,
        run_dir=run_dir,
        verbose=verbose,
    )


def unfreeze_from(encoder: keras.Model, first: str, key: str = "first") -> None:
    """Makes an encoder trainable from one layer on; batch norm stays frozen, since its statistics are the preset's.

    Args:
        encoder: A backbone, its layers in order from input to output.
        first: Name, or beginning of the name, of the first layer to train.
        key: Name of the setting, for the error.

    Raises:
        ConfigError: If no layer is called so.
    """
    blocks = _list_blocks(encoder)
    start = next(
        (place for place, layer in enumerate(blocks) if layer.name.startswith(first)), None
    )
    if start is None:
        with_weights = [layer.name for layer in blocks if layer.weights]
        raise ConfigError(
            f"{key}: no layer's name begins with {first!r}; allowed: {', '.join(with_weights)}"
        )
    encoder.trainable = True
    for place, layer in enumerate(blocks):
        layer.trainable = place >= start and not isinstance(layer, keras.layers.BatchNormalization)


def _list_blocks(encoder: keras.Model) -> list[keras.layers.Layer]:
    """The layers from input to output, KerasHub's vision transformers opened up: all of their blocks are in one layer."""
    return [
        block
        for layer in encoder.layers
        for block in getattr(layer, "encoder_layers", None) or [layer]
    ]


def _restore_prevalence(model: keras.Model, data: TrainingData) -> None:
    """Moves the biases of the eczema heads so that probabilities fit the training prevalence again.

    Balanced weights train the log-odds of a population that is half eczema; the true ones differ by
    the constant logit(prevalence) (King and Zeng 2001, prior correction). Ranks do not change.
    """
    labels = data.targets["eczema"][data.train_rows, 0][data.labelled[data.train_rows]]
    prevalence = float(labels.mean())
    layers = [model.get_layer(head) for head in ECZEMA_HEADS.values()]
    for bias in [
        layer.bias for layer in layers if isinstance(layer, keras.layers.Dense)
    ]:  # late fusion is an average of such
        bias.assign(bias.numpy() + np.log(prevalence / (1 - prevalence)))
