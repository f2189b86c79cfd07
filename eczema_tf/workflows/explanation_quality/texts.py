"""Measures word scores: whether they mark the symptoms, and whether the answer depends on them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from scipy.special import expit

from eczema_tf.data.inputs import to_model_inputs
from eczema_tf.data.progress import track
from eczema_tf.data.text.alignment import align_text
from eczema_tf.data.text.offsets import TokenLocator
from eczema_tf.data.text.tokenizer import clean_text
from eczema_tf.evaluation.explanation_results import Comparison, compare_cases
from eczema_tf.explanation import faithfulness_text as faithful
from eczema_tf.explanation.mu_fidelity import SHARE, SUBSETS, compute_mu_fidelity
from eczema_tf.explanation.spans import PHRASE_SHARE, TOKEN_METHOD
from eczema_tf.explanation.token_scores import NODES
from eczema_tf.schema import PADDING_MASK, TOKEN_IDS
from eczema_tf.workflows.explanation_quality.cases import ExplainedCases

RANDOM = "random"  # the baseline
RANDOM_SCORES = 5  # how many random scores, whose figures are averaged
_NO_PHRASES = "no text with known phrases; only the built-in data says where symptoms are named"
_WORD_FIGURES = {
    "average_precision": ("higher", _NO_PHRASES),
    "precision": ("higher", _NO_PHRASES),
    "recall": ("higher", _NO_PHRASES),
    "comprehensiveness": ("higher", "no case has a text"),
    "sufficiency": ("lower", "no case has a text"),
    "mu_fidelity": ("higher", "no case has a text of several words"),
}


Scores = list[np.ndarray]  # for each case, the scores of its words


@dataclass(frozen=True)
class TextWords:
    """The words of a text, as the tokenizer splits it: punctuation marks are words, too.

    Attributes:
        of_token: int64 (tokens,), the word that each token belongs to; -1 for special tokens.
        spans: int64 (words, 2), character offsets into the text as the user wrote it.
    """

    of_token: np.ndarray
    spans: np.ndarray

    def add_up(self, scores: np.ndarray) -> np.ndarray:
        """Sums the scores of a text's tokens by word; scores of padding may follow them.

        Returns:
            float64 (words,).
        """
        known = self.of_token >= 0
        return np.bincount(
            self.of_token[known], weights=scores[: len(known)][known], minlength=len(self.spans)
        )

    def overlap(self, phrases: Sequence[tuple[int, int]]) -> np.ndarray:
        """Finds the words that are part of a phrase: bool (words,)."""
        starts, ends = np.array(phrases, "int64").reshape(-1, 2).T
        overlaps = (self.spans[:, :1] < ends) & (starts < self.spans[:, 1:])  # (words, phrases)
        return np.logical_or.reduce(overlaps, axis=1)

    def keep(self, token_ids: np.ndarray, kept: np.ndarray) -> dict[str, np.ndarray]:
        """Removes words from a text and closes the gaps; special tokens always stay.

        Args:
            token_ids: int32 (tokens,).
            kept: bool (variants, words).

        Returns:
            Token ids and padding mask, int32 (variants, tokens).
        """
        # a column that is always kept, at the end, where -1 finds it
        stays = np.append(kept, np.ones((len(kept), 1), bool), axis=1)[:, self.of_token]
        order = np.argsort(~stays, axis=1, kind="stable")
        mask = np.take_along_axis(stays, order, axis=1).astype("int32")
        return {TOKEN_IDS: token_ids[order] * mask, PADDING_MASK: mask}


def locate_words(cases: ExplainedCases) -> list[TextWords]:
    """Finds the words of each case's text; none where there is no text."""
    texts = list(cases.table["text"])
    cleaned = clean_text(tf.constant(texts))
    offsets = tf.function(TokenLocator(cases.trained.tokenizer))(cleaned)
    starts, ends = (offset.numpy() for offset in offsets)  # bytes of the cleaned text
    is_piece = np.array([piece.startswith("##") for piece in cases.trained.tokenizer.vocabulary])
    found = []
    for case, tokens in enumerate(cases.inputs.token_counts[cases.rows]):
        start, end = starts[case, :tokens], ends[case, :tokens]
        real = end > start  # not [CLS] or [SEP]
        first = real & ~is_piece[cases.gather(case)[TOKEN_IDS][0]]
        of_token = np.where(real, np.cumsum(first) - 1, -1)
        last = real & (np.append(of_token[1:], -1) != of_token)
        aligned = align_text(texts[case])
        spans = [aligned.locate(*span) for span in zip(start[first], end[last], strict=True)]
        found.append(TextWords(of_token, np.array(spans, "int64").reshape(-1, 2)))
    return found


def explain_words(
    cases: ExplainedCases, words: Sequence[TextWords], *, nodes: int = NODES, closing: str = ""
) -> Scores:
    """Scores words for eczema, with the function that is served.

    Args:
        cases: Cases with or without texts.
        words: From `locate_words`.
        nodes: Number of nodes of integrated gradients.
        closing: Sentence that is added to every text; its own words get no score.

    Returns:
        For each case, float64 (words,), signed, in logits.
    """
    closed = {}
    if closing:
        texts = tf.constant([f"{text}{closing}" for text in cases.table["text"]])
        tokenize = tf.function(lambda raw: cases.trained.tokenizer(clean_text(raw)))
        tokens = [values.numpy() for values in tokenize(texts)]
        closed = dict(zip((TOKEN_IDS, PADDING_MASK), tokens, strict=True))
    scores = []
    for chosen in cases.in_batches():
        batch = cases.gather(chosen) | {name: values[chosen] for name, values in closed.items()}
        explained = cases.explainer.score_tokens(to_model_inputs(batch), nodes).scores.numpy()
        scores += [
            words[case].add_up(of_tokens)
            for case, of_tokens in zip(chosen.tolist(), explained, strict=True)
        ]
    return scores


def compare_words(
    cases: ExplainedCases, words: Sequence[TextWords], scores: Scores
) -> dict[str, Comparison]:
    """Compares word scores with random ones.

    Args:
        cases: Cases with or without texts.
        words: From `locate_words`.
        scores: From `explain_words`.

    Returns:
        The comparisons by name of the figure.
    """
    rng = np.random.default_rng(cases.seed)
    measured: dict[int, dict[str, dict[str, float]]] = {}
    texts = np.flatnonzero(cases.has_text).tolist()
    for case in track(texts, "words", len(texts), slow=True):
        drawn = rng.normal(size=(RANDOM_SCORES, len(words[case].spans)))
        candidates = {TOKEN_METHOD: [scores[case]], RANDOM: list(drawn)}
        erased = rng.random((SUBSETS, drawn.shape[1])) < SHARE
        kept = np.append(np.ones_like(erased[:1]), ~erased, axis=0)  # all of them first
        logits = predict_kept(cases, case, words[case], kept)
        falls = expit(logits[0]) - expit(logits[1:])
        found = {
            name: [
                measure_scores(cases, case, words[case], draw)
                | {"mu_fidelity": compute_mu_fidelity(draw, erased, falls)}
                for draw in draws
            ]
            for name, draws in candidates.items()
        }
        measured[case] = {
            figure: {
                name: float(np.mean([draw[figure] for draw in draws]))
                for name, draws in found.items()
            }
            for figure in found[RANDOM][0]
        }
    return compare_cases(_WORD_FIGURES, measured, [TOKEN_METHOD, RANDOM], cases.sampling)


def predict_kept(
    cases: ExplainedCases, case: int, words: TextWords, kept: np.ndarray
) -> np.ndarray:
    """Returns a case's logits (variants,) with some words of its text, bool (variants, words)."""
    token_ids = cases.gather(case)[TOKEN_IDS][0]
    return cases.predict_variants(case, words.keep(token_ids, kept))


def measure_scores(
    cases: ExplainedCases, case: int, words: TextWords, scores: np.ndarray
) -> dict[str, float]:
    """Measures the scores of one text's words.

    Average precision, precision and recall are measured on texts in which phrases on symptoms are
    known, whatever the sign of the scores, since a denied symptom is evidence, too. Erasure is
    measured on every text, and on the answer that the model gives, eczema or not.

    Returns:
        Values by figure; figures that do not apply are left out.
    """
    sign = 1 if cases.logits[case] > 0 else -1

    def answer(kept: np.ndarray) -> np.ndarray:
        return expit(sign * predict_kept(cases, case, words, kept))

    comprehensiveness, sufficiency = faithful.compute_erasure(sign * scores, answer)
    figures = {"comprehensiveness": comprehensiveness, "sufficiency": sufficiency}
    if phrases := cases.ground_truth.find_phrases(cases.table["example_id"][case]):
        relevant = words.overlap(phrases)
        figures["average_precision"] = faithful.compute_ranking_precision(scores, relevant)
        figures["precision"], figures["recall"] = faithful.compute_precision_recall(
            scores, relevant, PHRASE_SHARE
        )
    return figures
