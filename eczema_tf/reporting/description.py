"""What was found, as values that JSON can hold: one form for the files that `explain` writes and for the web page."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np

from eczema_tf.explanation.contributions import compute_contributions
from eczema_tf.explanation.words import Span
from eczema_tf.symptoms.cues import CRITERIA_NOTICE, Cue, describe_category, read_criteria


def describe_contributions(logits: np.ndarray) -> dict[str, float]:
    """Splits one case's logit among photo and text.

    Args:
        logits: float (4,), the fusion logit of the case as it is, without the text, without the
            photo, without both.

    Returns:
        `logit`, and the fields of `contribution.Contributions`.
    """
    split = asdict(compute_contributions(*np.asarray(logits)[:, None]))
    return {"logit": float(logits[0]), **{name: float(value[0]) for name, value in split.items()}}


def describe_heatmap(heatmap: np.ndarray) -> dict[str, Any]:
    """Says where a heatmap is highest.

    Args:
        heatmap: float (rows, columns) in [0, 1].

    Returns:
        `evidence` (whether there is any), `peak` (`x` and `y` as shares of the photo's width and
        height, or None) and `grid`.
    """
    row, column = np.unravel_index(np.argmax(heatmap), heatmap.shape)
    found = bool(heatmap.any())
    peak = {"x": (int(column) + 0.5) / heatmap.shape[1], "y": (int(row) + 0.5) / heatmap.shape[0]}
    return {
        "evidence": found,
        "peak": peak if found else None,
        "grid": [[round(float(value), 4) for value in line] for line in heatmap],
    }


def describe_spans(text: str, spans: Iterable[Span]) -> list[dict[str, Any]]:
    """Returns words or phrases with their offsets and scores."""
    return [
        {
            "start": span.start,
            "end": span.end,
            "text": text[span.start : span.end],
            "score": span.score,
        }
        for span in spans
    ]


def describe_cues(cues: Iterable[Cue]) -> list[dict[str, Any]]:
    """Returns cues with their fields, and `describes`: the category in words for people."""
    return [{**asdict(cue), "describes": describe_category(cue.category)} for cue in cues]


def describe_criteria(cues: Iterable[Cue]) -> dict[str, Any]:
    """Returns what the cues say about the criteria (`read`), and the `notice` to be shown with it."""
    read = [
        {
            "name": criterion.name,
            "criterion": criterion.words,
            "status": criterion.status,
            "cues": [[cue.start, cue.end] for cue in criterion.cues],
        }
        for criterion in read_criteria(cues)
    ]
    return {"notice": CRITERIA_NOTICE, "read": read}
