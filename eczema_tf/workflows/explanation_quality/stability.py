"""Measures whether explanations depend on what a model has learned, and survive small changes."""

from collections.abc import Callable, Sequence

import keras
import numpy as np

from eczema_tf.data.progress import track
from eczema_tf.explanation.sanity import (
    Depth,
    compute_relative_change,
    correlate_ranks,
    randomise_in_cascade,
)
from eczema_tf.model.decision import TypicalFeatures
from eczema_tf.model.layers import AddedEvidence, MissingModality
from eczema_tf.model.multimodal import CLINICAL_EVIDENCE
from eczema_tf.schema import ECZEMA_HEADS
from eczema_tf.workflows.explanation_quality.cases import TARGET, ExplainedCases

DRAWS = 3  # draws of random weights: all cases of one draw share its luck
ENCODER_STAGES = 5  # the encoder's layers are randomised in groups, from its end to its beginning

# For each case, a map or the scores of a text's words.
Explanations = np.ndarray | Sequence[np.ndarray]


def list_depths(model: keras.Model, modality: str) -> list[Depth]:
    """Lists the layers between the answer and a photo or text, from the top.

    Args:
        model: From `build_model`.
        modality: "image" or "text".

    Returns:
        Each layer with weights outside the encoder, then the encoder's layers in `ENCODER_STAGES`
        groups. The other modality's layers are left out, and so are layers that see neither
        modality: clinical fields, and stand-ins for what is missing or typical.
    """
    other, encoder = {"image": "text", "text": "image"}[modality], f"{modality}_encoder"
    path = keras.Model(model.inputs, model.get_layer(TARGET).output).layers[::-1]
    alone = keras.Model(model.inputs, model.get_layer(ECZEMA_HEADS[other]).output).layers
    others = {layer.name for layer in alone} | {encoder, CLINICAL_EVIDENCE}
    outside = [
        Depth(layer.name, layer.weights)
        for layer in path
        if layer.weights
        and layer.name not in others
        and not isinstance(layer, (MissingModality, AddedEvidence, TypicalFeatures))
    ]
    inside = [layer for layer in model.get_layer(encoder).layers[::-1] if layer.weights]
    stages = np.array_split(np.arange(len(inside)), min(ENCODER_STAGES, len(inside) or 1))
    return outside + [
        Depth(
            f"{encoder}, stage {len(stages) - number} of {len(stages)}",
            [weight for index in stage for weight in inside[index].weights],
        )
        for number, stage in enumerate(stages)
        if len(stage)
    ]


def randomise(
    cases: ExplainedCases, modality: str, explain: Callable[[], Explanations]
) -> dict[str, dict[str, np.ndarray]]:
    """Correlates explanations with those of a model that knows less and less.

    Weights are randomised layer by layer from the top, `DRAWS` times.

    Args:
        cases: The cases to explain.
        modality: "image" or "text"; every case must have it.
        explain: Explains all cases with the model in its current state.

    Returns:
        By depth, float64 (cases,) averages over the draws: the `correlation` with the original
        explanation, the correlation of their `absolute_values`, and the `absolute_correlation`,
        since an inverted map still shows what the map showed.
    """
    depths, original = list_depths(cases.trained.model, modality), explain()
    found: dict[str, list[dict[str, np.ndarray]]] = {depth.name: [] for depth in depths}
    for draw in track(range(DRAWS), f"randomised weights, {modality}", DRAWS, slow=True):
        rng = np.random.default_rng([cases.seed, draw])
        explained = randomise_in_cascade(depths, explain, rng)
        for depth, after in zip(depths, explained, strict=True):
            correlation = correlate(original, after)
            absolute = [[np.abs(one) for one in each] for each in (original, after)]
            figures = {
                "correlation": correlation,
                "absolute_values": correlate(*absolute),
                "absolute_correlation": np.abs(correlation),
            }
            found[depth.name].append(figures)
    return {
        name: {figure: average([draw[figure] for draw in draws]) for figure in draws[0]}
        for name, draws in found.items()
    }


def compare_explanations(before: Explanations, after: Explanations) -> dict[str, np.ndarray]:
    """Compares explanations before and after a small change of photo or text.

    Returns:
        `correlation` and `relative_change`, float64 (cases,), NaN where there is nothing to
        compare.
    """
    pairs = zip(before, after, strict=True)
    changes = [compute_relative_change(first[None], second[None])[0] for first, second in pairs]
    return {"correlation": correlate(before, after), "relative_change": np.array(changes)}


def correlate(before: Explanations, after: Explanations) -> np.ndarray:
    """Computes the rank correlation of two explanations of each case.

    Returns:
        float64 (cases,), NaN where one of them has no order.
    """
    pairs = zip(before, after, strict=True)
    return np.array([correlate_ranks(first[None], second[None])[0] for first, second in pairs])


def average(draws: Sequence[np.ndarray]) -> np.ndarray:
    """Averages over the draws in which a figure is defined; NaN where it never is."""
    known = np.isfinite(draws).sum(axis=0)
    unknown = np.full(known.shape, np.nan)
    return np.divide(np.nansum(draws, axis=0), known, out=unknown, where=known > 0)
