"""The answer about one case and its explanation, as JSON and as lines of text for people."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from eczema_tf.evaluation.grades import has_learned, name_grades
from eczema_tf.evaluation.predictions import FLAGS
from eczema_tf.evaluation.thresholds import choose_kind
from eczema_tf.explanation.contributions import Contributions
from eczema_tf.explanation.spans import TOKEN_METHOD, Span
from eczema_tf.reporting.decisions import give_reason
from eczema_tf.schema import CONSISTENCY, DECISIONS, ECZEMA_HEADS, NOTICE, SEVERITY
from eczema_tf.symptoms.cues import CRITERIA_NOTICE, Criterion, Cue, describe_category

Probabilities = dict[str, float]


@dataclass(frozen=True)
class Heatmap:
    """Where in a photo the evidence lies.

    Attributes:
        method: One of `schema.HEATMAP_METHODS`.
        peak: The strongest place, x and y as shares of the photo's width and height; None if no
            evidence was found, or none is shown.
        grid: Rows of values in [0, 1], stretched over the whole photo.
        scale: What 1 stands for, in logits for each hundredth of the photo's area. None if the
            method has no such scale; then the strongest place has 1.
        known: Whether the photo is like those that the model was trained on. For other photos, no
            evidence is shown, whatever the method.
    """

    method: str
    peak: tuple[float, float] | None
    grid: tuple[tuple[float, ...], ...]
    scale: float | None = None
    known: bool = True

    @property
    def total(self) -> float | None:
        """What all places add to the target's logit, or take from it; None without a scale."""
        return None if self.scale is None else 100 * self.scale * float(np.mean(self.grid))

    def on_scale(self, full: float | None) -> np.ndarray:
        """Returns the grid rescaled so that 1 stands for `full`, to make heatmaps comparable.

        Args:
            full: In the unit of `scale`; None if the method has no scale.
        """
        return np.array(self.grid) * ((self.scale or 1) / (full or 1))

    def to_json(self) -> dict[str, Any]:
        """Returns the value of "heatmap" in `explanation.json`."""
        return {
            "method": self.method,
            "evidence": self.peak is not None,
            "peak": self.peak and dict(zip("xy", self.peak, strict=True)),
            "grid": self.grid,
            "scale": self.scale,
            "total": self.total,
            "known": self.known,
        }


@dataclass(frozen=True)
class TextReading:
    """What the model and the fixed rules found in a text.

    Attributes:
        words: In order, with their scores in logits.
        phrases: Neighbouring words of the same sign, the strongest phrase first.
        cues: Symptoms mentioned or denied, found by rules, with how far they moved the answer.
        criteria: Those of the UK Working Party, as far as the text tells.
    """

    words: tuple[Span, ...]
    phrases: tuple[Span, ...]
    cues: tuple[Cue, ...]
    criteria: tuple[Criterion, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns the value of "text" in `explanation.json`."""
        return {
            "method": TOKEN_METHOD,
            "words": [asdict(word) for word in self.words],
            "phrases": [asdict(phrase) for phrase in self.phrases],
            "cues": [
                {**asdict(cue), "describes": describe_category(cue.category)} for cue in self.cues
            ],
            "criteria": {
                "notice": CRITERIA_NOTICE,
                "read": [
                    {
                        "name": criterion.name,
                        "criterion": criterion.words,
                        "status": criterion.status,
                        "cues": [[cue.start, cue.end] for cue in criterion.cues],
                    }
                    for criterion in self.criteria
                ],
            },
        }


@dataclass(frozen=True)
class CounterCheck:
    """What the model answers when something is taken away.

    Attributes:
        without: "phrase", "photo" or "text".
        words: The phrase; "" for a photo or text.
        eczema: The probability of eczema then; None if nothing is left to go by.
    """

    without: str
    words: str
    eczema: float | None


@dataclass(frozen=True)
class Explanation:
    """Why an answer is what it is.

    Attributes:
        target: What the heatmap and the words explain, as in `explanation.submodels.select_logit`.
        direction: "for" or "against": what the heatmap shows.
        contributions: How far photo, text and clinical fields each moved the target's logit.
        heatmaps: One for each photo; None for a photo that was not used.
        text: None if no text was used.
        checks: The overall answer without the strongest phrase and, where there are both, without
            the photo and without the text.
    """

    target: str
    direction: str
    contributions: Contributions
    heatmaps: tuple[Heatmap | None, ...]
    text: TextReading | None
    checks: tuple[CounterCheck, ...] = ()


@dataclass(frozen=True)
class Answer:
    """The answer about one case.

    Attributes:
        decision: One of `schema.DECISIONS`.
        reason: Why it was decided so, in one sentence.
        eczema: Probability from "image", "text" and "fusion"; None where nothing was used.
        thresholds: For the same three, chosen on validation data; None if they are not known. With
            only a photo or only a text, P(eczema) is compared with that input's threshold
            (`find_threshold`).
        consistency: Probability by label; None without a text, or if the model never learned it.
        severity: Probability by grade, if it is eczema; None if nothing was used.
        grade: The median grade, at or below which half of the probability lies; "" where it is not
            known.
        image_used: Whether the photo, or one of several, could be used.
        text_used: Whether the text could be used.
        known_image: Whether the photo, or one of several, was used and is like those that the model
            was trained on.
        known_text: Whether the text was used, is like training texts and was mostly read.
        status: "ok", or remarks on photo and text, separated by "; ".
        photos: How many photos were given.
        explanation: None unless one was asked for.
        notice: To be shown with the answer.
    """

    decision: str
    reason: str
    eczema: dict[str, float | None]
    thresholds: Probabilities | None
    consistency: Probabilities | None
    severity: Probabilities | None
    grade: str
    image_used: bool
    text_used: bool
    known_image: bool
    known_text: bool
    status: str
    photos: int
    explanation: Explanation | None = None
    notice: str = NOTICE

    def to_json(self) -> dict[str, Any]:
        """Returns what `predict --json` prints and, with an explanation, `explanation.json` has."""
        answer = {**vars(self), "grade": self.grade or None}
        if (why := answer.pop("explanation")) is None:
            return answer
        answer["explained"] = {"target": why.target, "direction": why.direction}
        moved = why.contributions
        shares = {name: value for name, value in asdict(moved).items() if value is not None}
        answer["contributions"] = {**shares, "logit": moved.logit}
        answer["counter_checks"] = [asdict(check) for check in why.checks]
        heatmaps = [heatmap and heatmap.to_json() for heatmap in why.heatmaps]
        if any(heatmaps):
            answer["heatmap"] = next(filter(None, heatmaps))
        if len(heatmaps) > 1:
            answer["heatmaps"] = heatmaps
        if why.text is not None:
            answer["text"] = why.text.to_json()
        return answer

    def find_threshold(self, modality: str) -> float | None:
        """Returns the threshold for the probability; None if it is not known."""
        if modality == "fusion":
            modality = choose_kind(self.image_used, self.text_used)
        return None if self.thresholds is None else self.thresholds[modality]

    def compare_with_threshold(self, modality: str) -> str | None:
        """Says on which side of the threshold: "above" or "below"; None where either is unknown."""
        probability, threshold = self.eczema[modality], self.find_threshold(modality)
        if probability is None or threshold is None:
            return None
        return "above" if probability >= threshold else "below"


def read_answer(
    outputs: Mapping[str, Any],
    thresholds: Probabilities | None,
    notice: str = NOTICE,
    *,
    photos: int = 1,
) -> Answer:
    """Reads one row of a signature's outputs.

    Args:
        outputs: By name, as plain Python values (design: the table of signatures).
        thresholds: By modality, from the export's metadata.
        notice: From the export's metadata.
        photos: How many photos were given.
    """
    used = {"image": outputs["image_used"], "text": outputs["text_used"]}
    used["fusion"] = any(used.values())
    consistency = _label(CONSISTENCY, outputs["consistency"]) if used["text"] else None
    unclear = consistency is None or max(consistency, key=consistency.__getitem__) == "unclear"
    grade = name_grades(np.array([outputs["severity"]]), np.array([unclear and not used["image"]]))
    return Answer(
        decision=outputs["decision"],
        reason=give_reason(outputs, photos),
        eczema={
            modality: outputs[head] if used[modality] else None
            for modality, head in ECZEMA_HEADS.items()
        },
        thresholds=thresholds,
        consistency=consistency if has_learned(np.array([outputs["consistency"]])) else None,
        severity=_label(SEVERITY, outputs["severity"]) if used["fusion"] else None,
        grade=str(grade[0]),
        **{name: outputs[name] for name in (*FLAGS, "status")},
        photos=photos,
        notice=notice,
    )


def _label(labels: tuple[str, ...], probabilities: list[float]) -> Probabilities:
    return dict(zip(labels, probabilities, strict=True))


def _rank(probabilities: Probabilities) -> str:
    ranked = sorted(probabilities.items(), key=lambda item: -item[1])
    return ", ".join(f"{label} {_say(value)}" for label, value in ranked)


def _say(probability: float) -> str:
    """Writes a probability, but never the certainty of 0 or 1."""
    if probability < 0.01:
        return "under 0.01"
    return "over 0.99" if probability > 0.99 else f"{probability:.2f}"


def format_answer(answer: Answer) -> str:
    """Formats an answer as lines for a terminal."""
    photos = "from the photos" if answer.photos > 1 else "from the photo"
    both = "from both" if answer.image_used and answer.text_used else "overall"
    lines = [f"{answer.decision.capitalize()}: {answer.reason}.", ""]
    for modality, name in {"image": photos, "text": "from the text", "fusion": both}.items():
        value, side = answer.eczema[modality], answer.compare_with_threshold(modality)
        said = "not given" if value is None else _say(value)
        if side is not None:
            threshold = _say(answer.find_threshold(modality) or 0)
            figure = "" if threshold == said else f" {threshold}"
            said += f"  ({side} the validation threshold{figure})"
        lines.append(f"P(eczema) {name:<15} {said}")
    if answer.consistency:
        lines.append(f"{'the text suggests':<25} {_rank(answer.consistency)}")
    if answer.severity:
        is_eczema = answer.decision == DECISIONS[2]
        name = "severity of the eczema" if is_eczema else "severity, if eczema"
        said = f"{answer.grade}  ({_rank(answer.severity)})" if answer.grade else "not known"
        lines.append(f"{name:<25} {said}")
    if answer.status != "ok":
        lines.append(f"note: {answer.status}")
    return "\n".join([*lines, "", answer.notice])
