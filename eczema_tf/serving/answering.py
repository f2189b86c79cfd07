"""From photos and text of one case to an explained answer, for both `explain` and the web page.

A backend (a trained run, or an export's signatures) computes the numbers, one row for each photo;
this module interprets them.
"""

from asyncio import to_thread
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from eczema_tf.data.text.alignment import align_text
from eczema_tf.explanation.contributions import Contributions
from eczema_tf.explanation.maps import HEATMAP_METHOD, find_peak
from eczema_tf.explanation.spans import join_phrases, join_words
from eczema_tf.reporting.answer import Answer, CounterCheck, Explanation, Heatmap, TextReading
from eczema_tf.serving.cases import Outputs, Said, pool_rows, read_case
from eczema_tf.serving.graph.signature import EXPLAIN, SERVE, WITH_CLINICAL
from eczema_tf.symptoms.cues import attribute_cues, find_cues, read_criteria

AskSignature = Callable[..., Awaitable[Outputs]]  # as `ExportedModel.run`


class Question(NamedTuple):
    """What to explain, and how.

    Attributes:
        target: As in `explanation.submodels.select_logit`.
        direction: "for" or "against": which evidence the heatmap shows.
        image_method: One of `schema.HEATMAP_METHODS`.
    """

    target: str = "eczema"
    direction: str = "for"
    image_method: str = HEATMAP_METHOD


class Backend(Protocol):
    """A model that answers rows, each with one photo, that share one text."""

    question: Question
    said: Said

    async def ask(self, photos: Sequence[bytes], text: str, clinical: str = "") -> Outputs:
        """Answers upright JPEGs (b"" for none), and explains the answers.

        Clinical fields are as from `data.clinical.lines.join_fields`; "" where nothing is known.

        Returns:
            What the signature `explain` returns (`serving.graph.served_model`); the backend's
            `question` says what is explained.
        """

    async def answer(self, photos: Sequence[bytes], text: str, clinical: str = "") -> Outputs:
        """Answers without explaining; returns what the signature `serving_default` returns."""


async def answer_case(
    backend: Backend, photos: Sequence[bytes], text: str, clinical: str = ""
) -> Answer:
    """Answers one case and explains the answer.

    Args:
        backend: The model.
        photos: Upright JPEGs or PNGs; b"" for one that cannot be shown.
        text: As the user wrote it; "" for none.
        clinical: As in `Backend.ask`.

    Raises:
        EczemaError: What the backend raises.
    """
    shown = list(photos) or [b""]
    rows = await backend.ask(shown, text, clinical)
    answer = await to_thread(read_case, rows, backend.said, len(photos))
    explanation = await to_thread(_explain_rows, rows, text, backend.question)
    checks = []
    if explanation.text and explanation.text.phrases:
        phrase = explanation.text.phrases[0]
        others = f"{text[: phrase.start]} {text[phrase.end :]}"
        rest = await backend.answer(shown, others, clinical)
        without = read_case(rest, backend.said, len(photos))
        checks.append(CounterCheck("phrase", phrase.text, without.eczema["fusion"]))
    if answer.image_used and answer.text_used:
        # where one modality is missing, the answer is that of the other's head (model/fusion.py)
        for missing, left in (("photo", "text"), ("text", "image")):
            alone = answer.eczema[left]
            if clinical:  # which adds to that answer
                given = ([b""], text) if missing == "photo" else (shown, "")
                rest = await backend.answer(*given, clinical)
                alone = read_case(rest, backend.said, len(given[0])).eczema["fusion"]
            checks.append(CounterCheck(missing, "", alone))
    return replace(answer, explanation=replace(explanation, checks=tuple(checks)))


def _explain_rows(rows: Outputs, text: str, question: Question) -> Explanation:
    case = [""] * len(rows["status"])
    pooled = {name: values[0] for name, values in pool_rows(rows, case, None).items()}
    return Explanation(
        target=question.target,
        direction=question.direction,
        contributions=Contributions(*pooled["contribution"].tolist()),
        heatmaps=tuple(
            _read_heatmap(rows, row, question.image_method) if used else None
            for row, used in enumerate(rows["image_used"])
        ),
        text=_read_text(text, pooled) if pooled["text_used"] else None,
    )


def _read_heatmap(rows: Outputs, row: int, method: str) -> Heatmap | None:
    known = bool(rows["known_image"][row])
    heatmap = rows["heatmap"][row] * known
    if heatmap.size == 1:  # an encoder that gives one vector per photo has no places to show
        return None
    peak = find_peak(heatmap)
    return Heatmap(
        method=method,
        peak=peak and (peak[1], peak[0]),
        grid=tuple(tuple(round(float(value), 4) for value in line) for line in heatmap),
        scale=float(rows["heatmap_scale"][row]) if method == HEATMAP_METHOD else None,
        known=known,
    )


def _read_text(text: str, row: Mapping[str, Any]) -> TextReading:
    """Maps the scores back to the user's own words, and to the symptoms among them."""
    starts, ends = row["token_start"].tolist(), row["token_end"].tolist()
    aligned = align_text(text)
    places = [
        aligned.locate(start, end) if end > start else (0, 0)
        for start, end in zip(starts, ends, strict=True)
    ]
    continues = find_continuing(row["clean_text"], starts, ends)
    located = zip(places, row["token_score"], continues, strict=True)
    words = join_words(text, [(*place, score, continues) for place, score, continues in located])
    cues = attribute_cues(find_cues(text), [(word.start, word.end, word.score) for word in words])
    return TextReading(
        words=tuple(words),
        phrases=tuple(join_phrases(text, words)),
        cues=tuple(cues),
        criteria=tuple(read_criteria(cues)),
    )


class ExportBackend:
    """An export's signatures, run through the server's batches or directly."""

    question = Question()

    def __init__(self, ask: AskSignature, said: Said):
        """Creates the backend.

        Args:
            ask: Runs rows through a signature, as `serving.rest.batching.Batcher.ask` does.
            said: What is known about the model, from the export's metadata.
        """
        self._ask, self.said = ask, said

    async def ask(self, photos: Sequence[bytes], text: str, clinical: str = "") -> Outputs:
        """Runs the signature `explain`."""
        return await self._run(EXPLAIN, photos, text, clinical)

    async def answer(self, photos: Sequence[bytes], text: str, clinical: str = "") -> Outputs:
        """Runs the signature that does not explain."""
        return await self._run(SERVE, photos, text, clinical)

    async def _run(
        self, signature: str, photos: Sequence[bytes], text: str, clinical: str
    ) -> Outputs:
        name, rows = WITH_CLINICAL[signature] if clinical else signature, len(photos)
        return await self._ask(photos, [text] * rows, name, [clinical] * rows)


def find_continuing(cleaned: bytes, starts: Sequence[int], ends: Sequence[int]) -> list[bool]:
    """Finds the tokens that continue the word before them, using only their offsets.

    Pieces of one word touch, and BERT separates words only at spaces and punctuation.

    Args:
        cleaned: The cleaned text, UTF-8.
        starts: Byte offset of each token.
        ends: Offset after its last byte.
    """
    continues, before = [], 0
    for start, end in zip(starts, ends, strict=True):
        # the last four bytes contain the whole last character
        last = cleaned[max(start - 4, 0) : start].decode(errors="ignore")[-1:]
        first = cleaned[start:end].decode(errors="ignore")[:1]
        continues.append(0 < start == before and last.isalnum() and first.isalnum())
        before = end
    return continues
