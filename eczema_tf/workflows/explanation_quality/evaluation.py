"""Whether a model's explanations can be trusted: what `evaluate --explanations` writes."""

from pathlib import Path

import numpy as np

from eczema_tf.data.dataset import Dataset
from eczema_tf.data.inputs import Inputs
from eczema_tf.evaluation.explanation_results import (
    Cascade,
    Estimates,
    ExplanationResults,
    ModalityResults,
    estimate_figures,
)
from eczema_tf.evaluation.intervals import Sampling
from eczema_tf.explanation.maps import HEATMAP_METHOD
from eczema_tf.explanation.spans import TOKEN_METHOD
from eczema_tf.explanation.submodels import Submodels
from eczema_tf.files import write_json
from eczema_tf.workflows.explanation_quality import stability
from eczema_tf.workflows.explanation_quality.cases import TARGET, ExplainedCases, choose_cases
from eczema_tf.workflows.explanation_quality.photos import compare_heatmaps, explain_photos
from eczema_tf.workflows.explanation_quality.texts import (
    Scores,
    compare_words,
    explain_words,
    locate_words,
)
from eczema_tf.workflows.run_folder import TrainedModel

EXPLANATIONS = "explanations.json"
CASCADE_CASES = 40  # for the randomised weights, where each case is explained 30 times
FINE_NODES = 256  # of a path integral that is as good as exact
CAMERA_NOISE = 4.0  # grey levels of 255, the noise of a phone's camera indoors
CLOSING = " Thank you."  # says nothing about the skin, and follows everything that does
NO_MAP = "this model's image encoder gives one vector per photo, which has no places to show"


def evaluate_explanations(
    trained: TrainedModel,
    submodels: Submodels,
    dataset: Dataset,
    inputs: Inputs,
    rows: np.ndarray,
    out: Path,
    *,
    split: str,
    cases: int,
) -> ExplanationResults:
    """Measures a model's explanations and writes `explanations.json`.

    Args:
        trained: The trained model.
        submodels: The parts of its model.
        dataset: The data set. Without `truth.jsonl` and `masks/` next to its manifest, results that
            need them are null, with the reason.
        inputs: Inputs of the whole data set.
        rows: int64, the rows to choose from; of a case with several rows, the first is taken.
        out: Folder to write to.
        split: What the rows are, for the record.
        cases: How many cases at most; the configuration's seed decides which.
    """
    chosen = choose_cases(trained, submodels, dataset, inputs, rows, cases)
    both = chosen.has_photo & chosen.has_text
    results = ExplanationResults(
        split=split,
        cases=len(chosen),
        target=TARGET,
        photo=evaluate_photos(chosen),
        text=evaluate_texts(chosen),
        with_both=int(both.sum()),
        contributions=evaluate_contributions(chosen, both),
        groups=chosen.table["group_id"].nunique(),
    )
    write_json(out / EXPLANATIONS, results.to_json())
    return results


def evaluate_photos(cases: ExplainedCases) -> ModalityResults | str:
    """Measures heatmaps, or says why there are none."""
    if not cases.explainer.submodels.has_feature_map:
        return NO_MAP
    if not cases.has_photo.any():
        return "no case has a photo"
    maps = explain_photos(cases)
    comparisons = compare_heatmaps(cases, maps.shown)
    read = np.flatnonzero(cases.has_photo)
    seen, few, evidence = cases.take(read), cases.take(read[:CASCADE_CASES]), maps.evidence[read]
    noise = stability.compare_explanations(evidence, explain_photos(seen, CAMERA_NOISE).evidence)
    randomised = stability.randomise(few, "image", lambda: explain_photos(few).evidence)
    floor = cases.explainer.submodels.evidence_scale.floor
    weak = int((100 * evidence.mean(axis=(1, 2)) < floor).sum())
    hidden = int((~maps.shown[read].any(axis=(1, 2))).sum())
    return ModalityResults(
        method=HEATMAP_METHOD,
        counts={"photos": len(read), "without_evidence": weak, "not_known": hidden - weak},
        comparisons=comparisons,
        changes={"noise": estimate_figures(noise, seen.sampling)},
        randomised=summarise_cascade(randomised, few.sampling),
    )


def evaluate_texts(cases: ExplainedCases) -> ModalityResults | str:
    """Measures word scores, or says why there are none."""
    if not cases.has_text.any():
        return "no case has a text"
    words = locate_words(cases)
    scores = explain_words(cases, words)
    comparisons = compare_words(cases, words, scores)
    read = np.flatnonzero(cases.has_text)
    seen, few = cases.take(read), cases.take(read[:CASCADE_CASES])
    seen_words, shown = [words[case] for case in read], [scores[case] for case in read]
    few_words = seen_words[:CASCADE_CASES]
    randomised = stability.randomise(few, "text", lambda: explain_words(few, few_words))
    changed = {
        "fine": explain_words(seen, seen_words, nodes=FINE_NODES),
        "closing": explain_words(seen, seen_words, closing=CLOSING),
    }
    return ModalityResults(
        method=TOKEN_METHOD,
        counts={"texts": len(read)},
        comparisons=comparisons,
        changes={
            name: estimate_figures(stability.compare_explanations(shown, after), seen.sampling)
            for name, after in changed.items()
        },
        randomised=summarise_cascade(randomised, few.sampling),
        sums=estimate_figures(add_up(seen, shown), seen.sampling, "no such text"),
    )


def add_up(cases: ExplainedCases, scores: Scores) -> dict[str, np.ndarray]:
    """Compares the sums of word scores with what the texts moved, which they should equal."""
    sums, moved = np.array([each.sum() for each in scores]), cases.contributions[:, 2]
    unclear = cases.table["consistency"].to_numpy(str) == "unclear"
    return {
        "moved": np.abs(moved),
        "missed": np.abs(sums - moved),
        "unclear": np.where(unclear, sums, np.nan),
    }


def evaluate_contributions(cases: ExplainedCases, both: np.ndarray) -> Estimates:
    """Measures how far photo and text move the answer, in either direction, where both exist."""
    image, text = (np.where(both, np.abs(cases.contributions[:, by]), np.nan) for by in (1, 2))
    share = np.divide(image, image + text, out=np.full(len(image), np.nan), where=image + text > 0)
    results = {"image": image, "text": text, "image_share": share}
    return estimate_figures(results, cases.sampling, "no case has both a photo and a text")


def summarise_cascade(depths: dict[str, dict[str, np.ndarray]], sampling: Sampling) -> Cascade:
    """Averages the correlations at each depth over cases."""
    return Cascade(
        cases=len(sampling.groups),
        draws=stability.DRAWS,
        depths={name: estimate_figures(figures, sampling) for name, figures in depths.items()},
    )
