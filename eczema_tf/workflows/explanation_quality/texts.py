"""Figures of words' scores: whether they lie on the symptoms, and whether the answer hangs on them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from scipy.special import expit
from tqdm import tqdm

from eczema_tf.data.text.alignment import align_text
from eczema_tf.data.text.offsets import TokenLocator
from eczema_tf.data.text.tokenizer import clean_text
from eczema_tf.evaluation.comparisons import Comparison
from eczema_tf.explanation import faithfulness_text as faithful
from eczema_tf.explanation.spans import PHRASE_SHARE
from eczema_tf.explanation.token_scores import (
    STEPS,
    integrate_gradients,
    multiply_gradient_by_input,
)
from eczema_tf.schema import PADDING_MASK, TOKEN_IDS
from eczema_tf.workflows.explanation_quality.cases import TARGET, ExplainedCases

INTEGRATED, ONE_STEP, RANDOM = (
    "integrated_gradients",
    "gradient_x_input",
    "random",
)  # the explanation and its rivals
RANDOM_DRAWS = 5  # scores, whose figures are averaged
_NO_PHRASES = "no text with known phrases; only the built-in data says where symptoms stand"
_FIGURES = {
    "average_precision": ("higher", _NO_PHRASES),
    "precision": ("higher", _NO_PHRASES),
    "recall": ("higher", _NO_PHRASES),
    "comprehensiveness": ("higher", "no case has a text"),
    "sufficiency": ("lower", "no case has a text"),
}


Scores = list[np.ndarray]  # of the words of each case


@dataclass(frozen=True)
class Words:
    """The words of a text, as the tokenizer splits it: punctuation marks are words, too.

    Attributes:
        of_token: int64 (tokens,), the word that each token belongs to; -1 for special tokens.
        spans: int64 (words, 2), character offsets into the text as the user wrote it.
    """

    of_token: np.ndarray
    spans: np.ndarray

    def add_up(self, scores: np.ndarray) -> np.ndarray:
        """Adds the scores of a text's first tokens, of which there may be more, up to words: float64 (words,)."""
        known = self.of_token >= 0
        return np.bincount(
            self.of_token[known], weights=scores[: len(known)][known], minlength=len(self.spans)
        )

    def overlap(self, phrases: Sequence[tuple[int, int]]) -> np.ndarray:
        """Finds the words that are part of a phrase: bool (words,)."""
        starts, ends = np.array(phrases, "int64").reshape(-1, 2).T
        return ((self.spans[:, :1] < ends) & (starts < self.spans[:, 1:])).any(axis=1)

    def keep(self, token_ids: np.ndarray, kept: np.ndarray) -> dict[str, np.ndarray]:
        """Takes words out of a text; those that stay close ranks, and special tokens always stay.

        Args:
            token_ids: int32 (tokens,).
            kept: bool (variants, words).

        Returns:
            Token ids and padding mask, int32 (variants, tokens).
        """
        stays = np.append(kept, np.ones((len(kept), 1), bool), axis=1)[
            :, self.of_token
        ]  # -1 is the last column
        order = np.argsort(~stays, axis=1, kind="stable")
        mask = np.take_along_axis(stays, order, axis=1).astype("int32")
        return {TOKEN_IDS: token_ids[order] * mask, PADDING_MASK: mask}


def locate_words(cases: ExplainedCases) -> list[Words]:
    """Finds the words of each case's text; none where there is no text."""
    aligned = [align_text(text) for text in cases.table["text"]]
    cleaned = tf.constant([text.cleaned for text in aligned])
    offsets = tf.function(TokenLocator(cases.trained.tokenizer))(cleaned)
    starts, ends = (offset.numpy() for offset in offsets)
    goes_on = np.array([piece.startswith("##") for piece in cases.trained.tokenizer.vocabulary])
    tokens = cases.inputs.token_counts[cases.rows]
    found = []
    for case, text in enumerate(aligned):
        place = slice(0, tokens[case])
        real = ends[case, place] > starts[case, place]
        first = real & ~goes_on[cases.gather(case)[TOKEN_IDS][0]]
        of_token = np.where(real, np.cumsum(first) - 1, -1)
        last = real & (np.append(of_token[1:], -1) != of_token)
        spans = [
            text.locate(*span)
            for span in zip(starts[case, place][first], ends[case, place][last], strict=True)
        ]
        found.append(Words(of_token, np.array(spans, "int64").reshape(-1, 2)))
    return found


def explain_words(
    cases: ExplainedCases,
    words: Sequence[Words],
    method: str = INTEGRATED,
    *,
    steps: int = STEPS,
    closing: str = "",
) -> Scores:
    """Scores words for eczema.

    Args:
        cases: With texts or without.
        words: From `locate_words`.
        method: One of `METHODS`.
        steps: Of integrated gradients.
        closing: Sentence that is added to every text; its own words get no score.

    Returns:
        For each case float64 (words,), signed, in logits.
    """
    closed = (
        _tokenize(cases, [f"{text}{closing}" for text in cases.table["text"]]) if closing else {}
    )
    scores = []
    for chosen in cases.in_batches():
        batch = cases.gather(chosen) | {name: values[chosen] for name, values in closed.items()}
        if method == INTEGRATED:
            explained = integrate_gradients(cases.submodels, batch, target=TARGET, steps=steps)
        else:
            explained = multiply_gradient_by_input(cases.submodels, batch, target=TARGET)
        scores += [
            words[case].add_up(tokens)
            for case, tokens in zip(chosen, explained.scores, strict=True)
        ]
    return scores


def _tokenize(cases: ExplainedCases, texts: list[str]) -> dict[str, np.ndarray]:
    token_ids, padding_mask = tf.function(lambda raw: cases.trained.tokenizer(clean_text(raw)))(
        tf.constant(texts)
    )
    return {TOKEN_IDS: token_ids.numpy(), PADDING_MASK: padding_mask.numpy()}


def compare_words(
    cases: ExplainedCases, words: Sequence[Words], scores: Mapping[str, Scores]
) -> dict[str, Comparison]:
    """Measures words' scores beside random ones.

    Average precision, precision and recall are of texts in which symptoms are known to stand,
    whatever their sign: what is denied is evidence, too. Erasure is of every text, and of the
    answer that the model gives, eczema or not.

    Args:
        cases: With texts or without.
        words: From `locate_words`.
        scores: From `explain_words`, by method; the first is the explanation.

    Returns:
        By the name of the figure.
    """
    values = {
        figure: {name: np.full(len(cases), np.nan) for name in (*scores, RANDOM)}
        for figure in _FIGURES
    }
    rng = np.random.default_rng(cases.seed)
    for case in tqdm(np.flatnonzero(cases.has_text), desc="words", unit="text"):
        drawn = {name: [of_method[case]] for name, of_method in scores.items()}
        drawn[RANDOM] = list(rng.normal(size=(RANDOM_DRAWS, len(words[case].spans))))
        measure = _build_measure(cases, case, words[case])
        for name, draws in drawn.items():
            for figure, value in _average([measure(draw) for draw in draws]).items():
                values[figure][name][case] = value
    return {
        figure: Comparison(values[figure], better, reason)
        for figure, (better, reason) in _FIGURES.items()
    }


def _build_measure(
    cases: ExplainedCases, case: int, words: Words
) -> Callable[[np.ndarray], dict[str, float]]:
    """What can be said of the scores of one text's words."""
    phrases = cases.truth.find_phrases(cases.table["example_id"][case])
    token_ids = cases.gather(case)[TOKEN_IDS][0]
    sign = 1 if cases.logits[case] > 0 else -1

    def answer(kept: np.ndarray) -> np.ndarray:
        return expit(sign * cases.predict_variants(case, words.keep(token_ids, kept)))

    def measure(scores: np.ndarray) -> dict[str, float]:
        figures = dict(
            zip(
                ("comprehensiveness", "sufficiency"),
                faithful.compute_erasure(sign * scores, answer),
                strict=True,
            )
        )
        if phrases:
            relevant = words.overlap(phrases)
            figures["average_precision"] = faithful.compute_ranking_precision(scores, relevant)
            figures["precision"], figures["recall"] = faithful.compute_precision_recall(
                scores, relevant, PHRASE_SHARE
            )
        return figures

    return measure


def _average(figures: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([figure[name] for figure in figures])) for name in figures[0]}
