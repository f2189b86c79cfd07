"""Copied texts: the same words, or nearly, that two people would hardly write by chance.

People write "what could this be?" independently, and whole complaints of stock phrases coincide in
a large data set. So a text counts as copied only if the words that two texts share carry more
information than the best of all pairs would share by chance: log2 of the number of pairs in bits,
plus `MARGIN_BITS`. How many bits a word carries is learned from the other texts (trigrams, backing
off to pairs and single words): a phrase that many groups use carries next to none.

An edit ratio alone cannot tell copies from stock phrases: at the setting where rapidfuzz's finds
73 % of planted copies, it also joins 105 pairs of different complaints among 6,273 (docs/log.md).
"""

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher

import numpy as np

from eczema_tf.schema import MAX_TEXT_BYTES

Words = tuple[str, ...]

MIN_COPIED_WORDS = 8  # shorter texts are never copies
MIN_SHARED = 0.8  # of the words of the longer text: "nearly the same"
# of the longer text's word pairs: enough for a closer look; a changed word breaks two pairs
MIN_SHARED_PAIRS = 0.5
MAX_COPIES = 20  # groups; a text that more groups have counts as a form or a template
# Measured on 8 sets of 5,000 built-in cases, which are written from stock phrases (docs/leaks.md):
# chance reaches 13.
MARGIN_BITS = 14.0
CHANGE_BITS = 4.0  # for each changed word: its position (about 5 bits in 30 words)
# weight of the shorter context, in texts: a phrase of one other text still tells something, one of
# ten does not
BACK_OFF = 4.0
# a word in an unusual place carries at most this much more than on its own; otherwise each new
# sentence would look original
NOVELTY_BITS = 1.0
# Japanese and Chinese, written without spaces: each character is a word
_SCRIPTS = "\u3040-\u30ff\u3400-\u9fff"
_ANY = ""  # stands for any word: the count of ("dry", "") is that of "dry" followed by anything
_BEFORE = " "  # before the first word; no word is a space
_WORD = re.compile(f"[{_SCRIPTS}]|[^\\W{_SCRIPTS}]+")


def split_words(text: str) -> Words:
    """Returns the words of a text; case, punctuation and spacing do not matter."""
    return tuple(_WORD.findall(show_letters(text).casefold()))


def show_letters(text: str) -> str:
    """Normalises letters (NFKC) as the model reads them, without soft hyphens."""
    letters = unicodedata.normalize("NFKC", text[:MAX_TEXT_BYTES])  # quadratic in marks
    return "".join(letter for letter in letters if unicodedata.category(letter) != "Cf")


class PhraseModel:
    """How many bits each word of a text carries, given the texts of all other groups.

    Args:
        copies: Distinct texts, and how many groups have each.
    """

    def __init__(self, copies: Mapping[Words, int]):
        self.copies = copies
        self._counts = _count_phrases(copies)
        self._most = _find_most(copies)
        # one entry stands for words never seen
        self._vocabulary = sum(len(phrase) == 1 for phrase in self._counts)
        texts = sum(copies.values())
        self.chance_bits = math.log2(max(texts * (texts - 1) / 2, 1)) + MARGIN_BITS

    def bits(self, words: Words, left_out: Iterable[Words]) -> np.ndarray:
        """Returns the information of each word, float64 (words,), given all texts except some.

        Args:
            words: Words of the text.
            left_out: Texts that count as never seen.
        """
        own = _count_phrases({text: self.copies[text] for text in left_out})
        return self._measure(words, own, own)

    def bound_bits(self, words: Words) -> np.ndarray:
        """Returns the most that a text's words can carry when any other text is left out too."""
        own = _count_phrases({words: self.copies[words]})
        return self._measure(
            words, {phrase: own[phrase] + self._most[phrase] for phrase in own}, own
        )

    def is_copy(self, words: Words) -> bool:
        """Whether several groups would hardly have this text by chance."""
        return (
            len(words) >= MIN_COPIED_WORDS
            and self.copies[words] <= MAX_COPIES
            and self.bits(words, [words]).sum() >= self.chance_bits
        )

    def is_near_copy(self, first: Words, second: Words) -> bool:
        """Whether two texts share more than chance explains, with few words changed."""
        longest = max(len(first), len(second))
        if min(len(first), len(second)) < MIN_SHARED * longest:
            return False
        blocks = SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks()
        changed = longest - sum(block.size for block in blocks)
        if changed > (1 - MIN_SHARED) * longest:
            return False
        bits = self.bits(first, [first, second])
        shared = sum(bits[block.a : block.a + block.size].sum() for block in blocks)
        return bool(shared - CHANGE_BITS * changed >= self.chance_bits)

    def _measure(
        self, words: Words, unseen: Mapping[Words, int], unseen_before: Mapping[Words, int]
    ) -> np.ndarray:
        """Measures the words' information without `unseen` phrases and `unseen_before` contexts."""
        bits = []
        for phrases in zip(*(_phrases(words, length) for length in (1, 2, 3)), strict=True):
            in_place, alone = (
                self._probability(some, unseen, unseen_before) for some in (phrases, phrases[:1])
            )
            bits.append(min(-math.log2(in_place), -math.log2(alone) + NOVELTY_BITS))
        return np.array(bits)

    def _probability(
        self,
        phrases: Sequence[Words],
        unseen: Mapping[Words, int],
        unseen_before: Mapping[Words, int],
    ) -> float:
        """Computes a word's probability from phrases of one to three words, Dirichlet-smoothed."""
        probability = 1 / self._vocabulary
        for phrase in phrases:
            context = (*phrase[:-1], _ANY)
            seen = max(self._counts[phrase] - unseen[phrase], 0)
            before = self._counts[context] - unseen_before[context]
            probability = (seen + BACK_OFF * probability) / (before + BACK_OFF)
        return probability


def find_near_texts(model: PhraseModel) -> list[tuple[Words, Words]]:
    """Finds different texts that are nearly the same and would hardly be so by chance.

    Exactly the texts that share at least half of their word pairs are compared: texts that share
    half of their pairs share one of the rarest half (prefix filter; Bayardo, Ma and Srikant 2007,
    doi 10.1145/1242572.1242591). Common openings therefore cost nothing. Nor do texts of the same
    form: the words that they share carry too little information, whatever their order.

    Returns:
        Pairs, sorted.
    """
    texts = sorted(
        words
        for words, copies in model.copies.items()
        if len(words) >= MIN_COPIED_WORDS and copies <= MAX_COPIES
    )
    bounds = [model.bound_bits(words) for words in texts]
    words_of = [frozenset(words) for words in texts]
    pairs_of = [{*_phrases(words, 2)} for words in texts]
    seen = Counter(pair for pairs in pairs_of for pair in pairs)
    holders: dict[Words, list[int]] = defaultdict(list)
    found = []
    for place, pairs in enumerate(pairs_of):
        shared = math.ceil(len(pairs) * MIN_SHARED_PAIRS)
        rarest = sorted(pairs, key=lambda pair: (seen[pair], pair))[: len(pairs) - shared + 1]
        for other in {other for pair in rarest for other in holders[pair]}:
            least = MIN_SHARED_PAIRS * max(len(pairs), len(pairs_of[other]))
            if len(pairs & pairs_of[other]) < least:
                continue
            shared_words = [word in words_of[place] for word in texts[other]]
            if bounds[other][shared_words].sum() < model.chance_bits:
                continue
            if model.is_near_copy(texts[other], texts[place]):
                found.append((texts[other], texts[place]))
        if bounds[place].sum() >= model.chance_bits:
            for pair in rarest:
                holders[pair].append(place)
    return sorted(found)


def _count_phrases(copies: Mapping[Words, int]) -> Counter[Words]:
    """Counts phrases of one to three words, and their beginnings followed by anything."""
    counts: Counter[Words] = Counter()
    for words, number in copies.items():
        for length in (1, 2, 3):
            for phrase in _phrases(words, length):
                counts[phrase] += number
                counts[(*phrase[:-1], _ANY)] += number
    return counts


def _find_most(copies: Mapping[Words, int]) -> Counter[Words]:
    """Finds the largest count of each phrase in any one text, with its copies."""
    most: Counter[Words] = Counter()
    for words, number in copies.items():
        for phrase, count in _count_phrases({words: number}).items():
            most[phrase] = max(most[phrase], count)
    return most


def _phrases(words: Words, length: int) -> list[Words]:
    """Returns every word with the words before it: as many phrases as words."""
    padded = (_BEFORE,) * (length - 1) + words
    return [padded[start : start + length] for start in range(len(words))]
