"""Figures of a model's explanations, with intervals: whether they can be trusted. What `evaluate --explanations` writes."""

from pathlib import Path
from typing import Any

import numpy as np

from eczema_tf.data.dataset import Dataset
from eczema_tf.data.inputs import Inputs
from eczema_tf.data.synthetic.ground_truth import load_ground_truth
from eczema_tf.evaluation.comparisons import estimate_mean
from eczema_tf.evaluation.intervals import LEVEL, draw_weights
from eczema_tf.explanation.contributions import compute_contributions
from eczema_tf.explanation.one_pass import HEATMAP_METHOD
from eczema_tf.explanation.submodels import Submodels
from eczema_tf.files import write_json
from eczema_tf.schema import IMAGE_PRESENT, TEXT_PRESENT
from eczema_tf.workflows.explanation_quality.cases import TARGET, ExplainedCases
from eczema_tf.workflows.explanation_quality.photos import compare_heatmaps, explain_photos
from eczema_tf.workflows.explanation_quality.stability import (
    DRAWS,
    correlate,
    disturb_photos,
    disturb_texts,
    randomise_photos,
    randomise_texts,
)
from eczema_tf.workflows.explanation_quality.texts import (
    INTEGRATED,
    ONE_STEP,
    compare_words,
    explain_words,
    locate_words,
)
from eczema_tf.workflows.run_folder import TrainedModel

EXPLANATIONS = "explanations.json"
CASCADE_CASES = 40  # for the randomised weights, which explain each case 30 times
NO_MAP = "this model's image encoder gives one vector a photo, which has no places to show"


def evaluate_explanations(
    trained: TrainedModel,
    dataset: Dataset,
    inputs: Inputs,
    rows: np.ndarray,
    out: Path,
    *,
    split: str,
    cases: int,
    method: str = HEATMAP_METHOD,
) -> dict[str, Any]:
    """Measures a model's explanations and writes the figures.

    Args:
        trained: Trained.
        dataset: With `truth.jsonl` and `masks/` beside its manifest, or without: then what needs
            them is null, with the reason.
        inputs: Of the whole data set.
        rows: int64, to choose from; of a case with several rows, the first is taken.
        out: Folder of `explanations.json`.
        split: What the rows are, for the record.
        cases: How many cases at most; which, depends on the configuration's seed.
        method: Of the heatmaps, one of `attribution.image.METHODS`.

    Returns:
        The contents of `explanations.json`.
    """
    chosen = choose_cases(trained, dataset, inputs, rows, cases)
    evaluate = trained.config.evaluate
    weights = draw_weights(
        chosen.table["group_id"], evaluate.bootstrap_replicates, trained.config.seed
    )
    figures = {
        "split": split,
        "cases": len(chosen),
        "explained": f"logit of {TARGET!r}",
        "photo": _describe_photos(chosen, weights, method),
        "text": _describe_texts(chosen, weights),
        "contributions": _describe_contributions(chosen, weights),
        "bootstrap": {
            "replicates": evaluate.bootstrap_replicates,
            "groups": int(chosen.table["group_id"].nunique()),
            "level": LEVEL,
        },
    }
    write_json(out / EXPLANATIONS, figures)
    return figures


def choose_cases(
    trained: TrainedModel, dataset: Dataset, inputs: Inputs, rows: np.ndarray, cases: int
) -> ExplainedCases:
    """Draws cases, and takes the first row of each."""
    rng = np.random.default_rng(trained.config.seed)
    firsts = rows[
        np.sort(np.unique(dataset.table["case_id"].to_numpy(str)[rows], return_index=True)[1])
    ]
    drawn = np.sort(rng.permutation(firsts)[:cases])
    table = dataset.table.iloc[drawn].reset_index(drop=True)
    truth = load_ground_truth(dataset.manifest.path)
    return ExplainedCases(
        trained, Submodels(trained.model), table, inputs, drawn, truth, trained.config.seed
    )


def _describe_photos(cases: ExplainedCases, weights: np.ndarray, method: str) -> dict[str, Any]:
    if not cases.submodels.has_feature_map or not cases.has_photo.any():
        return {
            "method": None,
            "reason": "no case has a photo" if cases.submodels.has_feature_map else NO_MAP,
        }
    heatmaps = explain_photos(cases, method)
    seen = np.flatnonzero(cases.has_photo)
    few = seen[:CASCADE_CASES]
    return {
        "method": method,
        "photos": len(seen),
        "without_evidence": int((heatmaps[seen].max(axis=(1, 2)) == 0).sum()),
        **{
            figure: comparison.summarise(weights)
            for figure, comparison in compare_heatmaps(cases, heatmaps).items()
        },
        "noise": _estimate(
            disturb_photos(cases.take(seen), heatmaps[seen], method), weights[:, seen]
        ),
        "randomised": _describe_cascade(randomise_photos(cases.take(few), method), weights[:, few]),
    }


def _describe_texts(cases: ExplainedCases, weights: np.ndarray) -> dict[str, Any]:
    if not cases.has_text.any():
        return {"method": None, "reason": "no case has a text"}
    words = locate_words(cases)
    scores = {name: explain_words(cases, words, name) for name in (INTEGRATED, ONE_STEP)}
    read = np.flatnonzero(cases.has_text)
    both = [[scores[name][case] for case in read] for name in (INTEGRATED, ONE_STEP)]
    few = read[:CASCADE_CASES]
    return {
        "method": INTEGRATED,
        "texts": len(read),
        **{
            figure: comparison.summarise(weights)
            for figure, comparison in compare_words(cases, words, scores).items()
        },
        "one_step": _estimate({"correlation": correlate(*both)}, weights[:, read]),
        "closing": _estimate(disturb_texts(cases.take(read), both[0]), weights[:, read]),
        "randomised": _describe_cascade(randomise_texts(cases.take(few)), weights[:, few]),
    }


def _describe_contributions(cases: ExplainedCases, weights: np.ndarray) -> dict[str, Any]:
    """How much photo and text move the answer where there are both, whatever the direction."""
    alone = [
        cases.predict(absent)
        for absent in (
            {TEXT_PRESENT: 0.0},
            {IMAGE_PRESENT: 0.0},
            {TEXT_PRESENT: 0.0, IMAGE_PRESENT: 0.0},
        )
    ]
    moved = [compute_contributions(*logits) for logits in zip(cases.logits, *alone, strict=True)]
    image, text = (
        np.where(cases.has_photo & cases.has_text, np.abs(by), np.nan)
        for by in ([split.image for split in moved], [split.text for split in moved])
    )
    share = np.divide(image, image + text, out=np.full(len(image), np.nan), where=image + text > 0)
    figures = {"image": image, "text": text, "image_share": share}
    return {
        "cases": int(np.isfinite(image).sum()),
        **_estimate(figures, weights, "no case has both a photo and a text"),
    }


def _describe_cascade(depths: list[dict[str, Any]], weights: np.ndarray) -> dict[str, Any]:
    described = [{"depth": depth.pop("name"), **_estimate(depth, weights)} for depth in depths]
    return {"cases": weights.shape[1], "draws": DRAWS, "depths": described}


def _estimate(
    figures: dict[str, np.ndarray], weights: np.ndarray, reason: str = "nothing to compare"
) -> dict[str, Any]:
    return {name: estimate_mean(values, weights, reason) for name, values in figures.items()}
