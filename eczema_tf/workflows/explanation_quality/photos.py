"""Measures heatmaps: whether they are on the lesion, and whether the answer depends on them."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from eczema_tf.data.inputs import to_model_inputs
from eczema_tf.data.progress import track
from eczema_tf.evaluation.explanation_results import Comparison, compare_cases
from eczema_tf.explanation import faithfulness_image as faithful
from eczema_tf.explanation.maps import upsample_heatmap
from eczema_tf.explanation.mu_fidelity import compute_mu_fidelity
from eczema_tf.schema import IMAGE
from eczema_tf.workflows.explanation_quality.cases import ExplainedCases

# the explanation and its baselines
MAP_NAMES = ("heatmap", "centred_gaussian", "edges", "random")
RANDOM_MAPS = 3  # how many random maps, whose figures are averaged
_NO_LESION = (
    "no photo of eczema with a heatmap and a known lesion; only the built-in data says where"
    " lesions lie"
)
_NO_ANSWER = "no photo with a heatmap in a case that the model calls eczema"
_HEATMAP_FIGURES = {
    "pointing": ("higher", _NO_LESION),
    "energy_inside": ("higher", _NO_LESION),
    "deletion": ("lower", _NO_ANSWER),
    "insertion": ("higher", _NO_ANSWER),
    "mu_fidelity": ("higher", _NO_ANSWER),
}


Measure = Callable[[np.ndarray], float]  # of a map (rows, columns)


class PhotoMaps(NamedTuple):
    """What is found in the photos of cases, zeros where there is no photo.

    Attributes:
        shown: float32 (cases, rows, columns) in [0, 1], the heatmaps that the served model gives;
            zeros for photos of a kind that it does not know, and where there is no evidence.
        evidence: The same shape, in logits for each hundredth of a photo: what the heatmaps would
            show.
    """

    shown: np.ndarray
    evidence: np.ndarray


def explain_photos(cases: ExplainedCases, noise_sigma: float = 0.0) -> PhotoMaps:
    """Computes heatmaps of the evidence for eczema, in the same pass as the served model.

    Args:
        cases: Cases with or without photos.
        noise_sigma: Standard deviation of Gaussian noise that is added to the photos, in grey
            levels of 255.
    """
    rng = np.random.default_rng(cases.seed)
    maps = []
    for chosen in cases.in_batches():
        batch = cases.gather(chosen)
        noise = rng.normal(0, noise_sigma, batch[IMAGE].shape)
        noisy = np.clip(batch[IMAGE] + noise, 0, 255)
        maps.append(cases.explainer.explain_photos(to_model_inputs(batch | {IMAGE: noisy})))
    return PhotoMaps(*(np.concatenate(each) for each in zip(*maps, strict=True)))


def compare_heatmaps(cases: ExplainedCases, heatmaps: np.ndarray) -> dict[str, Comparison]:
    """Compares heatmaps with maps that know nothing of the model, at the same resolution.

    Args:
        cases: Cases with or without photos.
        heatmaps: `PhotoMaps.shown`; where nothing is shown, there is nothing to measure.

    Returns:
        The comparisons by name of the figure.
    """
    rng = np.random.default_rng(cases.seed)
    shown = np.flatnonzero(heatmaps.any(axis=(1, 2))).tolist()
    photos = track(shown, "heatmaps", len(shown), slow=True)
    measured = {case: measure_heatmap(cases, case, heatmaps[case], rng) for case in photos}
    return compare_cases(_HEATMAP_FIGURES, measured, MAP_NAMES, cases.sampling)


def measure_heatmap(
    cases: ExplainedCases, case: int, heatmap: np.ndarray, rng: np.random.Generator
) -> dict[str, dict[str, float]]:
    """Measures one heatmap and its baselines.

    Pointing and energy are measured on photos with a lesion in cases of eczema, since that is where
    evidence for it is. Deletion, insertion and mu-fidelity are measured on photos in cases that the
    model calls eczema, rightly or wrongly, since that answer has to depend on them.

    Returns:
        Values by figure and map; figures that do not apply are left out.
    """
    photo = cases.gather(case)[IMAGE][0].astype("float32")  # (height, width, 3)
    height, width, _ = photo.shape
    rows, columns = heatmap.shape
    candidates = (
        [heatmap],
        [faithful.build_centred_gaussian(rows, columns)],
        [faithful.compute_edge_map(photo, rows, columns)],
        [faithful.draw_random_map(rows, columns, rng) for _ in range(RANDOM_MAPS)],
    )
    measures: dict[str, Measure] = {}
    row = cases.table.iloc[case]
    is_eczema = row["eczema"] > cases.trained.config.data.label_threshold
    mask = cases.ground_truth.load_mask(row["example_id"], height) if is_eczema else None
    if mask is not None and mask.any():
        measures["pointing"] = lambda found: faithful.points_at(found, mask)
        measures["energy_inside"] = lambda found: faithful.compute_energy_inside(
            upsample_heatmap(found, height, width), mask
        )

    if cases.logits[case] > 0:
        measures |= ask_again(cases, case, photo, rng)
    return {
        figure: {
            name: float(np.mean([measure(found) for found in maps]))
            for name, maps in zip(MAP_NAMES, candidates, strict=True)
        }
        for figure, measure in measures.items()
    }


def ask_again(
    cases: ExplainedCases, case: int, photo: np.ndarray, rng: np.random.Generator
) -> dict[str, Measure]:
    """Returns measures of how far the answer depends on what a map shows of a photo."""
    height, width, _ = photo.shape
    rows, columns, _ = cases.explainer.submodels.to_last_map.output.shape[1:]
    undecided = upsample_heatmap(faithful.draw_random_map(rows, columns, rng), height, width)
    erased = faithful.draw_erased_cells(height, width, rng)  # (subsets, height, width)

    def score(photos: np.ndarray) -> np.ndarray:
        return expit(cases.predict_variants(case, {IMAGE: photos}))

    def erase(compute: Callable[..., float], found: np.ndarray) -> float:
        return compute(photo, upsample_heatmap(found, height, width), undecided, score)

    blotted = np.where(erased[..., None], photo.mean(axis=(0, 1)), photo)
    whole, *left = score(np.append(photo[None], blotted, axis=0))

    def correlate(found: np.ndarray) -> float:
        scores = upsample_heatmap(found, height, width).ravel()
        return compute_mu_fidelity(scores, erased.reshape(len(erased), -1), whole - np.array(left))

    return {
        "deletion": partial(erase, faithful.compute_deletion),
        "insertion": partial(erase, faithful.compute_insertion),
        "mu_fidelity": correlate,
    }
