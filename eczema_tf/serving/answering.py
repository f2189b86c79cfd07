"""One photo and one text to an explained answer, for `explain` and for the web page alike.

A backend (a trained run, or an export's signatures) is asked for figures; what they mean is found
here.
"""

from asyncio import to_thread
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np

from eczema_tf.data.text.alignment import align_text
from eczema_tf.explanation.contributions import Contributions
from eczema_tf.explanation.maps import find_peak
from eczema_tf.explanation.one_pass import HEATMAP_METHOD
from eczema_tf.explanation.spans import join_phrases, join_words
from eczema_tf.reporting.answer import (
    Answer,
    CounterCheck,
    Explanation,
    Heatmap,
    TextReading,
    read_answer,
)
from eczema_tf.schema import NOTICE
from eczema_tf.serving.exported import Outputs, plain_row
from eczema_tf.serving.graph.signature import EXPLAIN, SERVE
from eczema_tf.symptoms.cues import attribute_cues, find_cues, read_criteria

AskSignature = Callable[[Sequence[bytes], Sequence[str], str], Awaitable[Outputs]]


class Question(NamedTuple):
    """What is explained, and how.

    Attributes:
        target: As in `explanation.submodels.select_logit`.
        direction: "for" or "against": what the heatmap shows.
        image_method: One of `explanation.heatmaps.HEATMAP_METHODS`.
    """

    target: str = "eczema"
    direction: str = "for"
    image_method: str = HEATMAP_METHOD


@dataclass(frozen=True)
class ScoredTokens:
    """The tokens of one text, special ones and padding too.

    Attributes:
        starts: Byte offset of each in the cleaned text.
        ends: Offset after its last byte; the same as its start for special tokens and padding.
        scores: float32 (tokens,), signed, in logits.
        continues: Whether each continues the word of the token before it.
    """

    starts: Sequence[int]
    ends: Sequence[int]
    scores: np.ndarray
    continues: Sequence[bool]


class Findings(NamedTuple):
    """What a backend says about a case.

    Attributes:
        answer: Not explained yet.
        contributions: To the target's logit.
        heatmap: float32 (rows, columns) in [0, 1]; None if no photo was used.
        tokens: None if no text was used.
    """

    answer: Answer
    contributions: Contributions
    heatmap: np.ndarray | None
    tokens: ScoredTokens | None


class Backend(Protocol):
    """A model that can be asked about a case."""

    question: Question

    async def ask(self, photo: bytes, text: str) -> Findings:
        """Answers an upright JPEG (b"" for none) and a text ("" for none), and explains."""

    async def answer(self, photo: bytes, text: str) -> Answer:
        """Answers, and does not explain."""


async def answer_case(backend: Backend, photo: bytes, text: str) -> Answer:
    """Answers one case and explains the answer.

    Args:
        backend: The model.
        photo: An upright JPEG or PNG; b"" for none.
        text: As the user wrote it; "" for none.

    Raises:
        EczemaError: What the backend raises.
    """
    findings = await backend.ask(photo, text)
    explanation = await to_thread(_explain_findings, findings, text, backend.question)
    checks = await _check_against(backend, photo, text, findings.answer, explanation)
    return replace(findings.answer, explanation=replace(explanation, checks=checks))


async def _check_against(
    backend: Backend, photo: bytes, text: str, answer: Answer, explanation: Explanation
) -> tuple[CounterCheck, ...]:
    """Asks what the answer would be without the strongest phrase, the photo, the text."""
    checks = []
    if explanation.text and explanation.text.phrases:
        phrase = explanation.text.phrases[0]
        rest = await backend.answer(photo, f"{text[: phrase.start]} {text[phrase.end :]}")
        checks.append(CounterCheck("phrase", phrase.text, rest.eczema["fusion"]))
    if answer.image_used and answer.text_used:
        # where one modality is missing, the answer is that of the other's head (model/fusion.py)
        checks.append(CounterCheck("photo", "", answer.eczema["text"]))
        checks.append(CounterCheck("text", "", answer.eczema["image"]))
    return tuple(checks)


def _explain_findings(findings: Findings, text: str, question: Question) -> Explanation:
    heatmap = reading = None
    if findings.heatmap is not None:
        peak = find_peak(findings.heatmap)
        heatmap = Heatmap(
            method=question.image_method,
            peak=peak and (peak[1], peak[0]),
            grid=tuple(tuple(round(float(value), 4) for value in row) for row in findings.heatmap),
        )
    if findings.tokens is not None:
        reading = _read_text(text, findings.tokens)
    moved = findings.contributions
    return Explanation(question.target, question.direction, moved, heatmap, reading)


def _read_text(text: str, tokens: ScoredTokens) -> TextReading:
    """Takes the scores back to the user's own words, and to the symptoms among them."""
    aligned = align_text(text)
    places = [
        aligned.locate(start, end) if end > start else (0, 0)
        for start, end in zip(tokens.starts, tokens.ends, strict=True)
    ]
    located = zip(places, tokens.scores, tokens.continues, strict=True)
    words = join_words(text, [(*place, score, continues) for place, score, continues in located])
    cues = attribute_cues(find_cues(text), [(word.start, word.end, word.score) for word in words])
    return TextReading(
        words=tuple(words),
        phrases=tuple(join_phrases(text, words)),
        cues=tuple(cues),
        criteria=tuple(read_criteria(cues)),
    )


class ExportBackend:
    """An export's signatures, asked through the server's batches or directly."""

    question = Question()

    def __init__(
        self, ask: AskSignature, thresholds: dict[str, float] | None, notice: str = NOTICE
    ):
        """Takes what answers, what the answers are compared with, and what is said beside them.

        Args:
            ask: Runs rows through a signature, as `serving.rest.batching.Batcher.ask` does.
            thresholds: By modality, from the export's metadata.
            notice: Likewise.
        """
        self._ask = ask
        self._thresholds, self._notice = thresholds, notice

    async def ask(self, photo: bytes, text: str) -> Findings:
        """Asks the signature `explain`."""
        explained = await self._ask([photo], [text], EXPLAIN)
        row = {name: values[0] for name, values in explained.items()}
        plain = plain_row(explained)
        starts, ends = plain["token_start"], plain["token_end"]
        continues = find_continuing(row["clean_text"], starts, ends)
        return Findings(
            answer=read_answer(plain, self._thresholds, self._notice),
            contributions=Contributions(*plain["contribution"]),
            heatmap=row["heatmap"] if row["image_used"] else None,
            tokens=(
                ScoredTokens(starts, ends, row["token_score"], continues)
                if row["text_used"]
                else None
            ),
        )

    async def answer(self, photo: bytes, text: str) -> Answer:
        """Asks the signature that does not explain."""
        plain = plain_row(await self._ask([photo], [text], SERVE))
        return read_answer(plain, self._thresholds, self._notice)


def find_continuing(cleaned: bytes, starts: Sequence[int], ends: Sequence[int]) -> list[bool]:
    """Finds the tokens that continue the word before them, from their offsets alone.

    Pieces of a word touch, and between words BERT splits only at spaces and punctuation.

    Args:
        cleaned: The cleaned text, UTF-8.
        starts: Byte offset of each token.
        ends: Offset after its last byte.
    """
    continues, before = [], 0
    for start, end in zip(starts, ends, strict=True):
        # the last four bytes hold the whole last character
        last = cleaned[max(start - 4, 0) : start].decode(errors="ignore")[-1:]
        first = cleaned[start:end].decode(errors="ignore")[:1]
        continues.append(0 < start == before and last.isalnum() and first.isalnum())
        before = end
    return continues
