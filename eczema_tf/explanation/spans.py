"""Token scores as people read a text: word pieces are added up to words, and words to phrases."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

TOKEN_METHOD = "integrated_gradients"  # how tokens are scored: `token_scores`
INCOMPLETE = 0.02  # the share of a text's effect that its words' scores may miss
PHRASE_SHARE = 0.1  # a word belongs to a phrase if its score is at least this share of the highest
SENTENCE_ENDS = frozenset(".!?;…")


@dataclass(frozen=True)
class Span:
    """A word or phrase of a text.

    Attributes:
        start: Character offset in the text.
        end: Offset after its last character.
        text: The characters themselves.
        score: How far it moved the answer, signed, in logits.
    """

    start: int
    end: int
    text: str
    score: float


def join_words(text: str, tokens: Iterable[tuple[int, int, float, bool]]) -> list[Span]:
    """Adds the scores of word pieces up to words.

    Args:
        text: The text that the tokens are from.
        tokens: Start and end (character offsets), score, and whether the token continues the word
            of the token before it ("##" pieces). Those with `start == end` (special, padding) are
            skipped.

    Returns:
        The words in order.
    """
    words: list[Span] = []
    for start, end, score, continues in tokens:
        if start == end:
            continue
        # one character, such as "½", may become several tokens, which all have its place
        if words and (continues or start < words[-1].end):
            before = words.pop()
            start, end, score = before.start, max(end, before.end), before.score + float(score)
        words.append(Span(int(start), int(end), text[start:end], float(score)))
    return words


def join_phrases(text: str, words: Sequence[Span]) -> list[Span]:
    """Joins neighbouring words of the same sign that matter, but not across a sentence's end.

    Args:
        text: The text that the words are from.
        words: From `join_words`.

    Returns:
        Phrases, the strongest first.
    """
    least = PHRASE_SHARE * max((abs(word.score) for word in words), default=0.0)
    phrases: list[Span] = []
    before = None  # the previous word, if it ends the last phrase
    for word in words:
        matters = (
            abs(word.score) >= least and word.score != 0 and not SENTENCE_ENDS & set(word.text)
        )
        if matters and before is not None and before.score * word.score > 0:
            first = phrases.pop()
            whole = text[first.start : word.end]
            phrases.append(Span(first.start, word.end, whole, first.score + word.score))
        elif matters:
            phrases.append(word)
        before = word if matters else None
    return sorted(phrases, key=lambda phrase: -abs(phrase.score))
