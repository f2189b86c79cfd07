"""Figures of heatmaps: whether they lie on the lesion, and whether the answer hangs on them."""

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.special import expit
from tqdm import tqdm

from eczema_tf.evaluation.comparisons import Comparison
from eczema_tf.explanation import faithfulness_image as faithful
from eczema_tf.explanation.heatmaps import compute_heatmaps
from eczema_tf.explanation.maps import upsample_heatmap
from eczema_tf.explanation.one_pass import HEATMAP_METHOD
from eczema_tf.explanation.submodels import to_tensors
from eczema_tf.schema import IMAGE
from eczema_tf.workflows.explanation_quality.cases import TARGET, ExplainedCases

HEATMAP, GAUSSIAN, EDGES, RANDOM = (
    "heatmap",
    "centred_gaussian",
    "edges",
    "random",
)  # the explanation and its rivals
RANDOM_DRAWS = 3  # maps, whose figures are averaged
_NO_LESION = "no photo of eczema with a known lesion; only the built-in data says where lesions lie"
_NO_ANSWER = "no photo in a case that the model calls eczema"
_FIGURES = {
    "pointing": ("higher", _NO_LESION),
    "energy_inside": ("higher", _NO_LESION),
    "deletion": ("lower", _NO_ANSWER),
    "insertion": ("higher", _NO_ANSWER),
}

Measure = Callable[[np.ndarray], float]  # of one map


def explain_photos(cases: ExplainedCases, method: str, noise_sigma: float = 0.0) -> np.ndarray:
    """Computes heatmaps of the evidence for eczema.

    Layer-CAM comes from the compiled pass that is served, which is a hundred times as fast as
    tf-keras-vis and gives the same maps.

    Args:
        cases: All of them get a map, zeros where there is no photo.
        method: One of `attribution.image.METHODS`.
        noise_sigma: Of Gaussian noise that is added to the photos, in grey levels of 255.

    Returns:
        float32 (cases, rows, columns) in [0, 1].
    """
    explain = (
        cases.explain_photos
        if method == HEATMAP_METHOD
        else partial(compute_heatmaps, cases.submodels, target=TARGET, method=method)
    )
    rng = np.random.default_rng(cases.seed)
    maps = []
    for chosen in cases.in_batches():
        batch = cases.gather(chosen)
        noise = rng.normal(0, noise_sigma, batch[IMAGE].shape)
        maps.append(explain(to_tensors(batch | {IMAGE: np.clip(batch[IMAGE] + noise, 0, 255)})))
    return np.concatenate(maps)


def compare_heatmaps(cases: ExplainedCases, heatmaps: np.ndarray) -> dict[str, Comparison]:
    """Measures heatmaps beside maps that know nothing of the model, all of one resolution.

    Pointing and energy are of photos with a lesion in cases that are eczema: there lies evidence
    for it. Deletion and insertion are of photos in cases that the model calls eczema, right or
    wrong: that answer has to hang on them.

    Args:
        cases: With photos or without.
        heatmaps: float32 (cases, rows, columns) in [0, 1], evidence for eczema.

    Returns:
        By the name of the figure.
    """
    values = {
        figure: {name: np.full(len(cases), np.nan) for name in (HEATMAP, GAUSSIAN, EDGES, RANDOM)}
        for figure in _FIGURES
    }
    rng = np.random.default_rng(cases.seed)
    for case in tqdm(np.flatnonzero(cases.has_photo), desc="heatmaps", unit="photo"):
        photo = cases.gather(case)[IMAGE][0].astype("float32")
        maps = _gather_maps(photo, heatmaps[case], rng)
        for figure, measure in {
            **_measure_place(cases, case, photo),
            **_measure_erasure(cases, case, photo, rng),
        }.items():
            for name, drawn in maps.items():
                values[figure][name][case] = np.mean([measure(one) for one in drawn])
    return {
        figure: Comparison(values[figure], better, reason)
        for figure, (better, reason) in _FIGURES.items()
    }


def _gather_maps(
    photo: np.ndarray, heatmap: np.ndarray, rng: np.random.Generator
) -> dict[str, list[np.ndarray]]:
    rows, columns = heatmap.shape
    return {
        HEATMAP: [heatmap],
        GAUSSIAN: [faithful.build_centred_gaussian(rows, columns)],
        EDGES: [faithful.compute_edge_map(photo, rows, columns)],
        RANDOM: [faithful.draw_random_map(rows, columns, rng) for _ in range(RANDOM_DRAWS)],
    }


def _measure_place(cases: ExplainedCases, case: int, photo: np.ndarray) -> dict[str, Measure]:
    """What can be said of where a map lies; nothing unless the case is eczema and the photo shows a lesion."""
    mask = (
        cases.truth.load_mask(cases.table["example_id"][case], len(photo))
        if cases.is_eczema[case]
        else None
    )
    if mask is None or not mask.any():
        return {}
    return {
        "pointing": lambda heatmap: faithful.points_at(heatmap, mask),
        "energy_inside": lambda heatmap: faithful.compute_energy_inside(
            upsample_heatmap(heatmap, *mask.shape), mask
        ),
    }


def _measure_erasure(
    cases: ExplainedCases, case: int, photo: np.ndarray, rng: np.random.Generator
) -> dict[str, Measure]:
    """What can be said of how the answer fares without what a map shows; nothing unless the answer is eczema."""
    if cases.logits[case] <= 0:
        return {}
    height, width, _ = photo.shape
    undecided = upsample_heatmap(
        faithful.draw_random_map(*cases.submodels.features_shape[:2], rng), height, width
    )

    def score(photos: np.ndarray) -> np.ndarray:
        return expit(cases.predict_variants(case, {IMAGE: photos}))

    return {
        name: lambda heatmap, compute=compute: compute(
            photo, upsample_heatmap(heatmap, height, width), undecided, score
        )
        for name, compute in (
            ("deletion", faithful.compute_deletion),
            ("insertion", faithful.compute_insertion),
        )
    }
