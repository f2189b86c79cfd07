"""Where tokens are: byte offsets into the cleaned text, as TensorFlow ops."""

from typing import NamedTuple

import tensorflow as tf
import tensorflow_text as tf_text

from eczema_tf.data.text.tokenizer import TextTokenizer

# How BERT splits words (Devlin et al. 2019, `BasicTokenizer`): at white space and control
# characters, which are dropped, and at punctuation and CJK characters, which are kept.
_SPACE = r"\s|\p{Cc}|\p{Cf}"
CJK = (  # ranges of characters, for a character class
    r"\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2B73F}"
    r"\x{2B740}-\x{2B81F}\x{2B820}-\x{2CEAF}\x{F900}-\x{FAFF}\x{2F800}-\x{2FA1F}"
)
_UNITS = ("BYTE", "UTF8_CHAR")
_KEPT = rf"[!-/]|[:-@]|[\[-`]|[{{-~]|\p{{P}}|[{CJK}]"


class Pieces(NamedTuple):
    """A batch of texts as words, and each word as the tokenizer's pieces.

    Attributes:
        words: string (batch, words), ragged, including punctuation and CJK characters.
        ids: int32 (words of all texts, pieces), ragged.
        starts: int64, same shape: byte offset of each piece into its text.
        ends: int64, same shape: the offset after it.
    """

    words: tf.RaggedTensor
    ids: tf.RaggedTensor
    starts: tf.RaggedTensor
    ends: tf.RaggedTensor


class TokenLocator:
    """Finds the tokens that a `TextTokenizer` returns."""

    def __init__(self, tokenizer: TextTokenizer):
        """Takes the tokenizer whose tokens are to be found."""
        self._lowercase, self._strip_accents = (
            tokenizer.tokenizer.lowercase,
            tokenizer.tokenizer.strip_accents,
        )
        self._pieces_kept = tokenizer.max_tokens - 2
        self._word_piece = tf_text.FastWordpieceTokenizer(
            tokenizer.vocabulary, token_out_type=tf.int32, no_pretokenization=True
        )

    def __call__(self, cleaned: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Finds the tokens inside a graph.

        Args:
            cleaned: string (batch,), from `clean_text`.

        Returns:
            Start and end, int32 (batch, longest): byte offsets into `cleaned`; both 0 for [CLS],
            [SEP] and padding.
        """
        pieces = self.split(cleaned)
        return self._lay_out(pieces.words, pieces.starts), self._lay_out(pieces.words, pieces.ends)

    def split(self, cleaned: tf.Tensor) -> Pieces:
        """Splits texts into words and pieces inside a graph, however long they are.

        A text is split into words as the tokenizer does, but before letters are folded, which may
        change their length. Each word is then split into pieces. If folding changes a word's
        length, each of its pieces gets the offsets of the whole word.

        Args:
            cleaned: string (batch,), from `clean_text`.
        """
        split, word_starts, word_ends = tf_text.regex_split_with_offsets(
            cleaned, f"{_SPACE}|{_KEPT}", _KEPT
        )
        words = folded = split.flat_values
        if self._strip_accents:
            folded = tf.strings.regex_replace(tf_text.normalize_utf8(folded, "NFD"), r"\p{Mn}", "")
        if self._lowercase:
            folded = tf_text.case_fold_utf8(folded)
        ids, starts, ends = self._word_piece.tokenize_with_offsets(folded)
        word = starts.value_rowids()  # of each piece
        # by bytes only, a sharp s is as long as the two letters that it is folded to
        lengths = ([tf.strings.length(of, unit) for of in (folded, words)] for unit in _UNITS)
        exact = tf.gather(tf.reduce_all([long == as_long for long, as_long in lengths], 0), word)
        first, last = (tf.gather(of.flat_values, word) for of in (word_starts, word_ends))
        return Pieces(
            split,
            ids,
            starts.with_flat_values(tf.where(exact, first + starts.flat_values, first)),
            ends.with_flat_values(tf.where(exact, first + ends.flat_values, last)),
        )

    def _lay_out(self, words: tf.RaggedTensor, offsets: tf.RaggedTensor) -> tf.Tensor:
        """Lays out (words, pieces) as int32 (batch, longest), 0 for special tokens at both ends."""
        by_text = words.with_flat_values(offsets).merge_dims(1, 2)[:, : self._pieces_kept]
        edge = tf.zeros((words.nrows(), 1), by_text.dtype)
        return tf.cast(tf.concat([edge, by_text, edge], axis=1).to_tensor(0), tf.int32)
