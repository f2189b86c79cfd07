"""Whether explanations die with what the model has learned, as they must, and whether they outlive small changes of photo and text."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from eczema_tf.explanation.sanity import (
    Depth,
    compute_relative_change,
    correlate_ranks,
    randomise_in_cascade,
)
from eczema_tf.model.layers import MissingModality
from eczema_tf.workflows.explanation_quality.cases import TARGET, ExplainedCases
from eczema_tf.workflows.explanation_quality.photos import explain_photos
from eczema_tf.workflows.explanation_quality.texts import INTEGRATED, explain_words, locate_words

DRAWS = 3  # of random weights: all cases of one draw share its luck
ENCODER_STAGES = 5  # the encoder's layers are randomised in groups, from its end to its beginning
CASCADE_STEPS = 16  # of integrated gradients; ranks need fewer than sums
NOISE_SIGMA = 4.0  # grey levels of 255, the noise of a phone's camera indoors
CLOSING = " Thank you."  # says nothing about the skin, and stands after all that does

Explanations = Sequence[np.ndarray]  # a map, or the scores of a text's words, for each case


def list_depths(model: keras.Model, modality: str) -> list[Depth]:
    """Lists the layers between the answer and a photo or text, from the top.

    Args:
        model: From `build_model`.
        modality: "image" or "text".

    Returns:
        Each layer with weights outside the encoder, then the encoder's in `ENCODER_STAGES` groups.
        The other modality's are left out, and so are the vectors that stand in for what is missing.
    """
    other, encoder = {"image": "text_", "text": "image_"}[modality], f"{modality}_encoder"
    path = keras.Model(model.inputs, model.get_layer(TARGET).output).layers[::-1]
    outside = [
        layer
        for layer in path
        if not layer.name.startswith((other, encoder)) and not isinstance(layer, MissingModality)
    ]
    inside = [layer for layer in model.get_layer(encoder).layers[::-1] if layer.weights]
    stages = np.array_split(np.arange(len(inside)), min(ENCODER_STAGES, len(inside) or 1))
    return [Depth(layer.name, layer.weights) for layer in outside if layer.weights] + [
        Depth(
            f"{encoder}, stage {len(stages) - number} of {len(stages)}",
            [weight for place in stage for weight in inside[place].weights],
        )
        for number, stage in enumerate(stages)
        if len(stage)
    ]


def randomise_photos(cases: ExplainedCases, method: str) -> list[dict[str, Any]]:
    """Correlates heatmaps with those of a model that knows less and less; see `_cascade`. Every case has a photo."""
    return _cascade(cases, "image", lambda: explain_photos(cases, method))


def randomise_texts(cases: ExplainedCases) -> list[dict[str, Any]]:
    """Correlates words' scores with those of a model that knows less and less; see `_cascade`. Every case has a text."""
    words = locate_words(cases)
    return _cascade(
        cases, "text", lambda: explain_words(cases, words, INTEGRATED, steps=CASCADE_STEPS)
    )


def _cascade(
    cases: ExplainedCases, modality: str, explain: Callable[[], Explanations]
) -> list[dict[str, Any]]:
    """Randomises layer by layer, `DRAWS` times.

    Returns:
        For each depth its `name` and, float64 (cases,), averages over the draws: the `correlation`
        with the original, that of `absolute_values`, and the `absolute_correlation`, since a map
        turned inside out still shows what the map showed.
    """
    depths, original = list_depths(cases.trained.model, modality), explain()
    found: list[list[dict[str, np.ndarray]]] = [[] for _ in depths]
    for draw in tqdm(range(DRAWS), desc=f"randomised weights, {modality}", unit="draw"):
        for depth, explained in enumerate(
            randomise_in_cascade(depths, explain, np.random.default_rng([cases.seed, draw]))
        ):
            correlation = correlate(original, explained)
            absolute = correlate(
                [np.abs(one) for one in original], [np.abs(one) for one in explained]
            )
            found[depth].append(
                {
                    "correlation": correlation,
                    "absolute_values": absolute,
                    "absolute_correlation": np.abs(correlation),
                }
            )
    return [
        {
            "name": depth.name,
            **{figure: _nanmean([draw[figure] for draw in draws]) for figure in draws[0]},
        }
        for depth, draws in zip(depths, found, strict=True)
    ]


def disturb_photos(
    cases: ExplainedCases, heatmaps: np.ndarray, method: str
) -> dict[str, np.ndarray]:
    """Compares heatmaps with those of the same photos with Gaussian noise of `NOISE_SIGMA`; see `_compare`."""
    return _compare(heatmaps, explain_photos(cases, method, NOISE_SIGMA))


def disturb_texts(cases: ExplainedCases, scores: Explanations) -> dict[str, np.ndarray]:
    """Compares words' scores with those of the same words where `CLOSING` is added to the text; see `_compare`."""
    return _compare(scores, explain_words(cases, locate_words(cases), INTEGRATED, closing=CLOSING))


def correlate(before: Explanations, after: Explanations) -> np.ndarray:
    """Rank correlation of two explanations of each case: float64 (cases,), NaN where one of them has no order."""
    return np.array(
        [
            correlate_ranks(first[None], second[None])[0]
            for first, second in zip(before, after, strict=True)
        ]
    )


def _compare(before: Explanations, after: Explanations) -> dict[str, np.ndarray]:
    """Rank correlation and relative change of each case: float64 (cases,), NaN where there is nothing to compare."""
    changes = [
        compute_relative_change(first[None], second[None])[0]
        for first, second in zip(before, after, strict=True)
    ]
    return {"correlation": correlate(before, after), "relative_change": np.array(changes)}


def _nanmean(draws: Sequence[np.ndarray]) -> np.ndarray:
    """Means over the draws where a figure is defined; NaN where it never is."""
    stacked = np.stack(draws)
    known = np.isfinite(stacked)
    count = known.sum(axis=0)
    return np.divide(
        np.where(known, stacked, 0).sum(axis=0),
        count,
        out=np.full(stacked.shape[1], np.nan),
        where=count > 0,
    )
