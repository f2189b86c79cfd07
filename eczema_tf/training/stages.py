"""The two stages of training.

Heads (and encoders from scratch) come first, then, if asked for, fine-tuning of pretrained
encoders.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import keras
from scipy.special import logit

from eczema_tf.config import Config, FineTuneConfig
from eczema_tf.data.cache import ArrayCache
from eczema_tf.errors import ConfigError
from eczema_tf.model.features import compute_features, frozen_encoders, open_cache
from eczema_tf.model.fusion import ECZEMA_SUM
from eczema_tf.model.multimodal import ENCODER_LAYERS, SEVERITY_TEXT_SCORE, Encoders, heads_of
from eczema_tf.model.trunk import encode_views, split_at, top_of
from eczema_tf.schema import ECZEMA_HEADS, MODALITIES
from eczema_tf.training.checkpoints import EpochMetrics
from eczema_tf.training.clinical import fit_clinical
from eczema_tf.training.data import TrainingData
from eczema_tf.training.familiarity import fit_distances
from eczema_tf.training.loop import Stage, train_stage
from eczema_tf.training.low_rank import add_low_rank, merge_low_rank
from eczema_tf.training.own_evidence import add_own_evidence
from eczema_tf.training.stacking import Scales, find_scales, scale_log_odds

# Factor on the learning rate, if findings are detected. Few texts have a grade, and the score
# starts at zero: with a factor of 1 it orders texts, but varies so little that all are called
# moderate (docs/log.md).
SEVERITY_RATE = 10.0


@dataclass(frozen=True)
class Judged:
    """What cases that a model was not trained on say about it.

    Attributes:
        scales: From `find_scales`.
        limits: From `fit_distances`.
        clinical: From `fit_clinical`; None without clinical fields.
    """

    scales: Scales
    limits: dict[str, float]
    clinical: float | None = None


@dataclass(frozen=True)
class History:
    """The metrics of each epoch, by stage, and finally what other cases say about the model."""

    heads: list[EpochMetrics]
    fine_tune: list[EpochMetrics] = field(default_factory=list)
    judged: Judged | None = None

    def kept(self, metric: str, keep: str) -> float:
        """Returns a metric after the epoch that was kept: the best, or the last."""
        values = [epoch[metric] for epoch in (*self.heads, *self.fine_tune)]
        return values[-1] if keep == "last" else max(values)


def train_model(
    model: keras.Model,
    encoders: Encoders,
    data: TrainingData,
    config: Config,
    run_dir: Path,
    judged: Judged | None = None,
) -> History:
    """Trains all stages and leaves the model with the best weights.

    Args:
        model: With preset weights loaded.
        encoders: Its encoders' specs.
        data: With pixels (or embeddings) and tokens as inputs.
        config: The run's configuration.
        run_dir: The run folder.
        judged: What another model's validation rows say, if this one has none left; None to judge
            it on its own.
    """
    train, absent = config.train, data.inputs.absent

    # === At the start, every answer is how common eczema is in the training data. What another
    # model says moves by as much as eczema is rarer here, or more common ===
    log_odds = float(logit(data.prevalence))
    learned = 0.0 if train.balance_classes else log_odds
    shift_log_odds(model, learned - float(model.get_layer(ECZEMA_SUM).prior))

    # === Heads, and encoders from scratch. A pretrained encoder's output is computed once: it is
    # called as in inference, with dropout off, and every epoch after that costs next to nothing ===
    for modality in encoders.pretrained:
        model.get_layer(ENCODER_LAYERS[modality]).trainable = False
    cache = open_cache(train)
    passing = ArrayCache(train.cache_folder, keep=False)  # of what fine-tuning changes
    cached = encoders.pretrained | absent
    features = compute_features(model, data.inputs, cached, cache)
    heads, others = heads_of(model, cached, encoders.heads), replace(data, inputs=features)
    if train.base_run is None:
        history = History(_train_heads(heads, encoders, others, config, run_dir))
    else:
        add_own_evidence(model, cached, others, learned)
        history = History([])

    # === Fine-tuning; what follows changes no encoder, and looks at rows several times ===
    if train.fine_tune.epochs:
        tuned = _fine_tune(model, encoders, data, config, run_dir, cache)
        history = replace(history, fine_tune=tuned)
        frozen = frozen_encoders(train, encoders) | absent
        features = compute_features(model, data.inputs, frozen, cache)
        features = compute_features(model, features, cached - frozen, passing)

    # === How far to trust each head and the fusion's parts, and how common eczema is ===
    others = replace(data, inputs=features)
    scales = judged.scales if judged else find_scales(heads, others, learned)
    limits = fit_distances(model, cached, others, judged.limits if judged else None)
    scale_log_odds(model, scales, learned)
    trust = judged.clinical if judged else None
    if encoders.clinical:
        trust = fit_clinical(heads, others, learned, trust)
    shift_log_odds(model, log_odds - learned)
    return replace(history, judged=Judged(scales, limits, trust))


def _train_heads(
    heads: keras.Model, encoders: Encoders, data: TrainingData, config: Config, run_dir: Path
) -> list[EpochMetrics]:
    graders = heads.get_layer(SEVERITY_TEXT_SCORE).weights if encoders.findings else []
    rates = {weight.path: SEVERITY_RATE for weight in graders}
    train, augment = config.train, config.preprocess.augment
    stage = Stage("heads", train.epochs, train.learning_rate, augment, rates=rates)
    return train_stage(heads, data, stage, config, run_dir)


def _fine_tune(
    model: keras.Model,
    encoders: Encoders,
    data: TrainingData,
    config: Config,
    run_dir: Path,
    cache: ArrayCache,
) -> list[EpochMetrics]:
    """Trains pretrained encoders, from the named layers on, together with the heads.

    Frozen encoders enter as features. So does, in a number of views, what lies below the first
    trained layer of the image encoder.
    """
    tuning, augment = config.train.fine_tune, config.preprocess.augment
    rates, adapted = _unfreeze(model, encoders, tuning)
    cached = frozen_encoders(config.train, encoders) | data.inputs.absent
    inputs, views = compute_features(model, data.inputs, cached, cache), 0
    part = heads_of(model, cached, encoders.heads)
    if tuning.image_from and "image" not in cached and tuning.views:
        views = tuning.views
        trunk, upper = split_at(model, tuning.image_from)
        part = top_of(model, trunk, upper, cached, encoders.heads)
        inputs = encode_views(trunk, inputs, views, augment, config.seed, cache)
    stage = Stage(
        name="fine_tune",
        epochs=tuning.epochs,
        learning_rate=tuning.learning_rate,
        augment=augment,
        keep_start=True,
        views=views,
        rates=rates,
    )
    history = train_stage(part, replace(data, inputs=inputs), stage, config, run_dir)
    merge_low_rank(adapted)
    return history


def try_fine_tuning(model: keras.Model, encoders: Encoders, tuning: FineTuneConfig) -> None:
    """Does to a model that is thrown away afterwards what fine-tuning does before it learns.

    Raises:
        ConfigError: If fine-tuning could not begin.
    """
    _unfreeze(model, encoders, tuning)
    if tuning.views and tuning.image_from:
        split_at(model, tuning.image_from)


def _unfreeze(
    model: keras.Model, encoders: Encoders, tuning: FineTuneConfig
) -> tuple[dict[str, float], list[keras.layers.Layer]]:
    """Makes encoders trainable from the named layers on.

    Returns:
        The shares of the rate, and the layers that learn by low-rank additions.

    Raises:
        ConfigError: If an encoder has no such layer, or no pretrained weights to tune.
    """
    rates: dict[str, float] = {}
    adapted: list[keras.layers.Layer] = []
    for modality, first in (("image", tuning.image_from), ("text", tuning.text_from)):
        if first is None:
            continue
        key = f"train.fine_tune.{modality}_from"
        if modality not in encoders.pretrained:
            raise ConfigError(
                f"{key}: the {modality} encoder has no pretrained weights here to fine-tune (it is"
                f" {getattr(encoders, modality).source}); received {first!r}, set it to null"
            )
        encoder = model.get_layer(ENCODER_LAYERS[modality])
        unfreeze_from(encoder, first, key)
        if tuning.lora_rank:
            adapted += add_low_rank(encoder, tuning.lora_rank)
        rates |= share_rates(encoder, tuning.lowest_rate)
    return rates, adapted


def share_rates(encoder: keras.Model, lowest: float) -> dict[str, float]:
    """Shares out the learning rate over an encoder's trainable layers.

    Args:
        encoder: A backbone.
        lowest: Share of its first trainable layer, in (0, 1]; the last one's is 1, and between
            them it rises from layer to layer by a constant factor.

    Returns:
        The shares, by path of a variable.
    """
    layers = [layer for layer in _list_blocks(encoder) if layer.trainable_variables]
    return {
        variable.path: lowest ** (1 - place / max(len(layers) - 1, 1))
        for place, layer in enumerate(layers)
        for variable in layer.trainable_variables
    }


def _list_blocks(encoder: keras.Model) -> list[keras.layers.Layer]:
    """Lists layers; KerasHub's vision transformers hold all of their blocks in one."""
    return [
        block
        for layer in encoder.layers
        for block in getattr(layer, "encoder_layers", None) or [layer]
    ]


def unfreeze_from(encoder: keras.Model, first: str, key: str) -> None:
    """Makes an encoder trainable from one layer on.

    Batch norm stays frozen, since its statistics are the preset's.

    Args:
        encoder: A backbone, its layers in order from input to output.
        first: Name, or beginning of the name, of the first layer to train.
        key: Name of the setting, for the error.

    Raises:
        ConfigError: If no layer has such a name, or none has weights.
    """
    blocks = _list_blocks(encoder)
    matches = [index for index, block in enumerate(blocks) if block.name.startswith(first)]
    allowed = ", ".join(block.name for block in blocks if block.weights)
    if not allowed:
        raise ConfigError(
            f"{key}: a SavedModel or precomputed embeddings cannot be fine-tuned: they have no"
            f" layers to train; received {first!r}, set it to null"
        )
    if not matches:
        raise ConfigError(f"{key}: no layer's name begins with {first!r}; allowed: {allowed}")
    encoder.trainable = True
    for index, block in enumerate(blocks):
        block.trainable = index >= matches[0]
    for layer in encoder._flatten_layers():  # KerasHub keeps some inside a block's layer
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def shift_log_odds(model: keras.Model, shift: float) -> None:
    """Moves the log-odds of all eczema heads by a constant; ranks do not change.

    Balanced labels train the log-odds of a population that is half eczema; the true ones differ by
    logit(prevalence) (King and Zeng 2001, prior correction).

    Args:
        model: The model whose heads and fusion's prior are moved.
        shift: Log-odds.
    """
    singles = [model.get_layer(ECZEMA_HEADS[modality]).bias for modality in MODALITIES]
    for weight in (*singles, model.get_layer(ECZEMA_SUM).prior):  # a sum moves as its prior does
        weight.assign_add(keras.ops.full(weight.shape, shift))
