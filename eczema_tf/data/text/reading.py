"""What a model does not read of a text: words beyond its reach and words that it does not know.

The served graph and offline code share one function: no part of a text is dropped silently.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from eczema_tf.data.text.offsets import CJK, Pieces, TokenLocator
from eczema_tf.data.text.tokenizer import MOSTLY, TextTokenizer, clean_text
from eczema_tf.schema import MAX_TEXT_BYTES, MOSTLY_UNKNOWN, READ_TO, STATUS_OK

FALSE_ALARMS = 0.05  # largest share of the training texts that are called mostly unknown
# bytes of known words that every text is credited with, so that "psoriasis" by itself, which most
# vocabularies split, is not yet a text of unknown words
_GIVEN_BYTES = 9
_WORD = r"[\p{L}\p{M}\p{N}\p{So}].*"  # not punctuation


class TextReader:
    """Says how far each text is read, and whether it is mostly unknown words."""

    def __init__(self, tokenizer: TextTokenizer):
        """Takes the tokenizer of the model that reads."""
        self.split = TokenLocator(tokenizer).split
        self._pieces_kept = tokenizer.max_tokens - 2
        self._unknown_id = tokenizer.vocabulary.index("[UNK]")
        self._unknown_limit = tokenizer.unknown_limit

    def __call__(self, texts: tf.Tensor, cleaned: tf.Tensor) -> tf.Tensor:
        """Describes the reading of texts inside a graph.

        Args:
            texts: string (batch,), as they came.
            cleaned: string (batch,), from `clean_text`.

        Returns:
            string (batch,): `STATUS_OK`, `READ_TO` with the last word read and the number of words,
            `MOSTLY_UNKNOWN`, or both, separated by "; ".
        """
        pieces = self.split(cleaned)
        ends = pieces.words.with_flat_values(pieces.ends).merge_dims(1, 2)  # (batch, pieces)
        length = tf.cast(tf.strings.length(cleaned), tf.int64)
        last = tf.reduce_max(ends[:, : self._pieces_kept], axis=1)
        stop = tf.where(ends.row_lengths() > self._pieces_kept, last, length)  # (batch,) bytes
        words = count_words(cleaned)
        read = words - count_words(tf.strings.substr(cleaned, stop, length))
        given = tf.where(tf.strings.length(texts) > MAX_TEXT_BYTES, count_words(texts), words)
        reach = tf.strings.join([READ_TO, tf.as_string(read), " of ", tf.as_string(given)])
        reach = tf.where(read < given, reach, STATUS_OK)
        unknown = self.measure_unknown(pieces) > self._unknown_limit
        return join_statuses(reach, tf.where(unknown, MOSTLY_UNKNOWN, STATUS_OK))

    def measure_unknown(self, pieces: Pieces) -> tf.Tensor:
        """Measures how much of each text is words that the vocabulary does not have whole.

        This is the proportion of continued words (Rust et al. 2021, "How Good is Your Tokenizer?",
        section 4.1), by bytes, so that short words, which languages share, count less. A word
        without any piece counts twice, because BERT knows every second Chinese character.

        Args:
            pieces: Pieces of texts, from `TokenLocator.split`.

        Returns:
            float32 (batch,) in [0, 1).
        """
        no_piece = tf.reduce_sum(tf.cast(pieces.ids == self._unknown_id, tf.int32), axis=1) > 0
        unknown = no_piece | (pieces.ids.row_lengths() > 1)  # (words of all texts,)
        words = pieces.words.flat_values
        weight = tf.where(no_piece, 2, 1) * tf.strings.length(words)
        weight = tf.where(tf.strings.regex_full_match(words, _WORD), weight, 0)
        of_unknown, of_all = (
            tf.reduce_sum(pieces.words.with_flat_values(values), axis=1)
            for values in (tf.where(unknown, weight, 0), weight)
        )
        return tf.cast(of_unknown / (of_all + _GIVEN_BYTES), tf.float32)


def is_read(statuses: tf.Tensor) -> tf.Tensor:
    """Tells whether a model has read enough of each text to have an opinion on it.

    Args:
        statuses: string (batch,), as from `TextReader`, or with more in them.

    Returns:
        bool (batch,): false for mostly unknown words, and where less than half was read.
    """
    # a group that does not match is empty
    pattern = rf"(?s)^(?:.*{READ_TO}(\d+) of (\d+).*|.*)$"
    read, given = (
        tf.strings.to_number(tf.strings.regex_replace(statuses, pattern, rf"0\{part}"))
        for part in (1, 2)
    )  # (batch,)
    unknown = tf.strings.regex_full_match(statuses, f"(?s).*{MOSTLY_UNKNOWN}.*")
    return (read >= MOSTLY * given) & ~unknown


def join_statuses(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Joins two statuses of rows, string (batch,) each: "a; b", or the one that is not "ok"."""
    both = tf.where(second == STATUS_OK, first, tf.strings.join([first, second], separator="; "))
    return tf.where(first == STATUS_OK, second, both)


def count_words(texts: tf.Tensor) -> tf.Tensor:
    """Counts the words between spaces; each Chinese character is a word.

    Args:
        texts: string (batch,); bytes that are not UTF-8 are ignored.

    Returns:
        int32 (batch,).
    """
    texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="ignore")
    marked = tf.strings.regex_replace(texts, rf"[{CJK}]|[^\s{CJK}]+", ".")
    return tf.strings.length(tf.strings.regex_replace(marked, r"\s+", ""))


def choose_unknown_limit(tokenizer: TextTokenizer, texts: Sequence[str]) -> float:
    """Chooses the share of unknown words above which a text is called mostly unknown.

    It is at least one half, and at least what all but `FALSE_ALARMS` of the training texts have.

    Args:
        tokenizer: The model's tokenizer.
        texts: Texts of the training split; "" for none.
    """
    reader = TextReader(tokenizer)
    written = tf.constant([text for text in texts if text] or [""])
    batches = tf.data.Dataset.from_tensors(written).unbatch().batch(4096)
    shares = batches.map(lambda batch: reader.measure_unknown(reader.split(clean_text(batch))))
    found = np.concatenate(list(shares.as_numpy_iterator()))
    return max(MOSTLY, float(np.quantile(found, 1 - FALSE_ALARMS, method="higher")))
