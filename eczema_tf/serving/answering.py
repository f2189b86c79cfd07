"""One photo and one text through the served model, with everything that explains the answer: what the web page shows.

The answer has the form of `explanation.json` (`explaining.py`), but comes from a SavedModel's
signatures alone.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import numpy as np

from eczema_tf.data.text.alignment import align_text
from eczema_tf.explanation.one_pass import HEATMAP_METHOD, TOKEN_METHOD
from eczema_tf.explanation.words import Span, join_phrases, join_words
from eczema_tf.reporting.description import (
    describe_contributions,
    describe_criteria,
    describe_cues,
    describe_heatmap,
    describe_spans,
)
from eczema_tf.serving.answer import arrange_answer
from eczema_tf.serving.loaded import EXPLAIN, SERVE
from eczema_tf.symptoms.cues import attribute_cues, find_cues

Outputs = Mapping[str, np.ndarray]
Ask = Callable[[Sequence[bytes], Sequence[str], str], Awaitable[Outputs]]
SMALLEST = (
    1e-7  # a float32 probability cannot be told from 0 or 1 beyond it; its logit is held at +-16
)


async def answer_case(
    ask: Ask, photo: bytes, text: str, thresholds: dict[str, Any] | None
) -> dict[str, Any]:
    """Answers one case and explains the answer.

    Args:
        ask: Runs rows through a signature, as `serving.batching.Batcher.ask` does.
        photo: An upright JPEG or PNG; b"" for none.
        text: As the user wrote it; "" for none.
        thresholds: Of each head, from the export's side file.

    Returns:
        As in `explanation.json`: `serving.answer.arrange_answer`'s fields, `contributions`,
            `heatmap` if the photo was used, and `text` if
        the text was.

    Raises:
        EczemaError: What `ask` raises.
    """
    explained, apart = await asyncio.gather(
        ask([photo], [text], EXPLAIN),
        ask([photo, b"", b""], ["", text, ""], SERVE),
    )
    return await asyncio.to_thread(_describe, explained, apart, text, thresholds)


def _describe(
    explained: Outputs, apart: Outputs, text: str, thresholds: dict[str, Any] | None
) -> dict[str, Any]:
    row = {name: values[0] for name, values in explained.items()}
    answer = arrange_answer({name: _plain(value) for name, value in row.items()}, thresholds)
    logits = _to_logits(np.concatenate([explained["eczema"], apart["eczema"]]))
    answer["contributions"] = describe_contributions(logits)
    if row["image_used"]:
        answer["heatmap"] = {"method": HEATMAP_METHOD, **describe_heatmap(row["heatmap"])}
    if row["text_used"]:
        answer["text"] = {"method": TOKEN_METHOD, **_describe_text(text, row)}
    return answer


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value.tolist()


def _to_logits(probabilities: np.ndarray) -> np.ndarray:
    clipped = np.clip(probabilities.astype("float64"), SMALLEST, 1 - SMALLEST)
    return np.log(clipped / (1 - clipped))


def _describe_text(text: str, row: Mapping[str, Any]) -> dict[str, Any]:
    words = _locate_words(text, row)
    cues = attribute_cues(find_cues(text), [(word.start, word.end, word.score) for word in words])
    return {
        "words": describe_spans(text, words),
        "phrases": describe_spans(text, join_phrases(text, words)),
        "cues": describe_cues(cues),
        "criteria": describe_criteria(cues),
    }


def _locate_words(text: str, row: Mapping[str, Any]) -> list[Span]:
    """The model's tokens as words of the text that the user wrote."""
    aligned = align_text(text)
    starts, ends = row["token_start"].tolist(), row["token_end"].tolist()
    places = [
        aligned.locate(start, end) if end > start else (0, 0)
        for start, end in zip(starts, ends, strict=True)
    ]
    return join_words(
        row["token_score"],
        *zip(*places, strict=True),
        _find_continued(row["clean_text"], starts, ends),
    )


def _find_continued(cleaned: bytes, starts: Sequence[int], ends: Sequence[int]) -> list[bool]:
    """Whether each token goes on with the word before it: pieces touch, and between words BERT only splits at spaces and punctuation."""
    continued, before = [], 0
    for start, end in zip(starts, ends, strict=True):
        touches = (
            0 < start == before
            and _ends_in_letter(cleaned[:start])
            and cleaned[start:end].decode(errors="ignore")[:1].isalnum()
        )
        continued.append(touches)
        before = end
    return continued


def _ends_in_letter(text: bytes) -> bool:
    return text[-4:].decode(errors="ignore")[-1:].isalnum()  # a character has at most four bytes
