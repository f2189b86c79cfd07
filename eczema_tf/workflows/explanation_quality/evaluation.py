"""Whether a model's explanations can be trusted: what `evaluate --explanations` writes."""

from pathlib import Path

import numpy as np

from eczema_tf.data.dataset import Dataset
from eczema_tf.data.inputs import Inputs
from eczema_tf.evaluation.comparisons import estimate_means
from eczema_tf.evaluation.explanation_results import (
    Cascade,
    Estimates,
    ExplanationResults,
    ModalityResults,
)
from eczema_tf.evaluation.intervals import draw_weights
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
CASCADE_CASES = 40  # for the randomised weights, which explain each case 30 times
FINE_NODES = 256  # of a path integral that is as good as exact
NOISE_SIGMA = 4.0  # grey levels of 255, the noise of a phone's camera indoors
CLOSING = " Thank you."  # says nothing about the skin, and stands after all that does
NO_MAP = "this model's image encoder gives one vector a photo, which has no places to show"


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
        trained: Trained.
        submodels: Of its model.
        dataset: With `truth.jsonl` and `masks/` beside its manifest, or without: then what needs
            them is null, with the reason.
        inputs: Of the whole data set.
        rows: int64, to choose from; of a case with several rows, the first is taken.
        out: Folder to write to.
        split: What the rows are, for the record.
        cases: How many cases at most; which, depends on the configuration's seed.
    """
    chosen = choose_cases(trained, submodels, dataset, inputs, rows, cases)
    groups, replicates = chosen.table["group_id"], trained.config.evaluate.bootstrap_replicates
    weights = draw_weights(groups, replicates, trained.config.seed)
    both = chosen.has_photo & chosen.has_text
    results = ExplanationResults(
        split=split,
        cases=len(chosen),
        target=TARGET,
        photo=evaluate_photos(chosen, weights),
        text=evaluate_texts(chosen, weights),
        with_both=int(both.sum()),
        contributions=evaluate_contributions(chosen, both, weights),
        replicates=replicates,
        groups=int(groups.nunique()),
    )
    write_json(out / EXPLANATIONS, results.to_json())
    return results


def evaluate_photos(cases: ExplainedCases, weights: np.ndarray) -> ModalityResults | str:
    """Measures heatmaps, or says why there are none."""
    if not cases.explainer.submodels.has_feature_map:
        return NO_MAP
    if not cases.has_photo.any():
        return "no case has a photo"
    maps = explain_photos(cases)
    comparisons = compare_heatmaps(cases, maps.shown)
    seen = np.flatnonzero(cases.has_photo)
    few, evidence = seen[:CASCADE_CASES], maps.evidence[seen]
    noisy = explain_photos(cases.take(seen), NOISE_SIGMA).evidence
    noise = stability.compare(evidence, noisy)
    chosen = cases.take(few)
    randomised = stability.randomise(chosen, "image", lambda: explain_photos(chosen).evidence)
    weak = 100 * evidence.mean(axis=(1, 2)) < cases.explainer.submodels.evidence_scale.floor
    hidden = int((~maps.shown[seen].any(axis=(1, 2))).sum())
    return ModalityResults(
        method=HEATMAP_METHOD,
        counts={
            "photos": len(seen),
            "without_evidence": int(weak.sum()),
            "not_known": hidden - int(weak.sum()),
        },
        comparisons={name: figure.summarise(weights) for name, figure in comparisons.items()},
        changes={"noise": estimate_means(noise, weights[:, seen])},
        randomised=summarise_cascade(randomised, weights[:, few]),
    )


def evaluate_texts(cases: ExplainedCases, weights: np.ndarray) -> ModalityResults | str:
    """Measures words' scores, or says why there are none."""
    if not cases.has_text.any():
        return "no case has a text"
    words = locate_words(cases)
    scores = explain_words(cases, words)
    comparisons = compare_words(cases, words, scores)
    read = np.flatnonzero(cases.has_text)
    seen, seen_words = cases.take(read), [words[case] for case in read]
    shown = [scores[case] for case in read]
    few = read[:CASCADE_CASES]
    chosen, few_words = cases.take(few), seen_words[:CASCADE_CASES]
    randomised = stability.randomise(chosen, "text", lambda: explain_words(chosen, few_words))
    changes = {
        "fine": stability.compare(shown, explain_words(seen, seen_words, nodes=FINE_NODES)),
        "closing": stability.compare(shown, explain_words(seen, seen_words, closing=CLOSING)),
    }
    return ModalityResults(
        method=TOKEN_METHOD,
        counts={"texts": len(read)},
        comparisons={name: figure.summarise(weights) for name, figure in comparisons.items()},
        changes={
            name: estimate_means(change, weights[:, read]) for name, change in changes.items()
        },
        randomised=summarise_cascade(randomised, weights[:, few]),
        sums=estimate_means(add_up(seen, shown), weights[:, read], "no such text"),
    )


def add_up(cases: ExplainedCases, scores: Scores) -> dict[str, np.ndarray]:
    """Compares the sums of words' scores with what the texts moved, which they should be."""
    sums, moved = np.array([each.sum() for each in scores]), cases.contributions[:, 2]
    unclear = cases.table["consistency"].to_numpy(str) == "unclear"
    return {
        "moved": np.abs(moved),
        "missed": np.abs(sums - moved),
        "unclear": np.where(unclear, sums, np.nan),
    }


def evaluate_contributions(
    cases: ExplainedCases, both: np.ndarray, weights: np.ndarray
) -> Estimates:
    """Measures how far photo and text move the answer, for or against, where there are both."""
    image, text = (np.where(both, np.abs(cases.contributions[:, by]), np.nan) for by in (1, 2))
    share = np.divide(image, image + text, out=np.full(len(image), np.nan), where=image + text > 0)
    results = {"image": image, "text": text, "image_share": share}
    return estimate_means(results, weights, "no case has both a photo and a text")


def summarise_cascade(depths: dict[str, dict[str, np.ndarray]], weights: np.ndarray) -> Cascade:
    """Averages the correlations of each depth over cases."""
    return Cascade(
        cases=weights.shape[1],
        draws=stability.DRAWS,
        depths={name: estimate_means(figures, weights) for name, figures in depths.items()},
    )
