"""Text to tokens: cleaning and WordPiece, as TensorFlow ops for both training and serving."""

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import keras_hub
import tensorflow as tf
import tensorflow_text as tf_text  # registers the ops that a SavedModel with a tokenizer needs
from keras_hub.tokenizers import compute_word_piece_vocabulary

from eczema_tf.errors import PresetError, RunError
from eczema_tf.schema import MAX_TEXT_BYTES

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]  # BERT's
VOCABULARY_FILE, SETTINGS_FILE = "vocabulary.txt", "tokenizer.json"
MARKUP = r"</?[A-Za-z!][^<>]{0,200}>"  # but not "a < b"
MOSTLY = 0.5
# one and a half, which NFKC would make eleven halves
FRACTIONS = "\u00bc-\u00be\u2150-\u215e"
MIXED_NUMBER = f"([0-9])([{FRACTIONS}])"


def clean_text(texts: tf.Tensor) -> tf.Tensor:
    """Cleans texts: valid UTF-8, Unicode NFKC, no markup, no control characters, single spaces.

    Invisible characters are removed, as in BERT's own cleaning: a soft hyphen or a zero-width
    space, which pages and documents put into words, does not split a word.

    Args:
        texts: string (batch,).

    Returns:
        string (batch,); "" where nothing is left.
    """
    texts = tf.strings.substr(texts, 0, MAX_TEXT_BYTES)
    texts = tf.strings.unicode_transcode(
        texts, "UTF-8", "UTF-8", errors="replace", replacement_char=0xFFFD
    )
    texts = tf.strings.regex_replace(texts, r"\p{Cf}+", "")
    texts = tf.strings.regex_replace(texts, MIXED_NUMBER, r"\1 \2")
    texts = tf_text.normalize_utf8(texts, "NFKC")
    texts = tf.strings.regex_replace(texts, MARKUP, " ")
    texts = tf.strings.regex_replace(texts, r"[\p{Cc}\p{Z}\x{FFFD}\s]+", " ")
    return tf.strings.strip(texts)


class TextTokenizer:
    """Turns cleaned text into the ids and mask of a BERT encoder.

    They are [CLS] tokens [SEP], cut to `max_tokens` and padded to the longest text of the batch.
    """

    def __init__(
        self,
        tokenizer: keras_hub.models.BertTokenizer,
        max_tokens: int,
        unknown_limit: float = MOSTLY,
    ):
        """Takes the vocabulary.

        Args:
            tokenizer: KerasHub's tokenizer.
            max_tokens: Length that texts are cut to.
            unknown_limit: Share of unknown words above which a text counts as mostly unknown
                (`text.reading`).
        """
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.unknown_limit = unknown_limit

    def __call__(self, texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Tokenizes inside a graph.

        Args:
            texts: string (batch,), cleaned.

        Returns:
            `token_ids` int32 (batch, longest) and `padding_mask` int32 (batch, longest), 1 where
            there is a token.
        """
        pieces = self.tokenizer(texts)[:, : self.max_tokens - 2]
        batch = tf.shape(texts)[0]
        start = tf.fill((batch, 1), self.tokenizer.cls_token_id)
        end = tf.fill((batch, 1), self.tokenizer.sep_token_id)
        tokens = tf.concat(
            [tf.cast(start, pieces.dtype), pieces, tf.cast(end, pieces.dtype)], axis=1
        )
        return tokens.to_tensor(self.tokenizer.pad_token_id), tf.ones_like(tokens).to_tensor(0)

    @functools.cached_property
    def traced(self) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
        """The same, as one graph for any number of texts; eager calls are fifty times slower."""
        specs = [tf.TensorSpec([None], tf.string)]
        return tf.function(self.__call__, input_signature=specs, autograph=False)

    def save(self, folder: Path) -> None:
        """Writes the vocabulary, one piece per line, and the settings, for `read_tokenizer`."""
        settings = {
            "lowercase": self.tokenizer.lowercase,
            "strip_accents": self.tokenizer.strip_accents,
            "max_tokens": self.max_tokens,
            "unknown_limit": self.unknown_limit,
        }
        (folder / VOCABULARY_FILE).write_text(
            "".join(f"{piece}\n" for piece in self.vocabulary), encoding="utf-8"
        )
        (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    @property
    def vocabulary(self) -> list[str]:
        """The word pieces in the order of their ids."""
        return self.tokenizer.get_vocabulary()


def learn_tokenizer(texts: Sequence[str], vocabulary_size: int, max_tokens: int) -> TextTokenizer:
    """Learns a WordPiece vocabulary from the training texts.

    Args:
        texts: Raw texts of the training split only.
        vocabulary_size: Maximum number of pieces.
        max_tokens: Length that texts are cut to.

    Returns:
        The tokenizer; without any text, one that knows no words, for a model of photos only.
    """
    cleaned = clean_text(tf.constant([text for text in texts if text] or [""]))
    if not tf.reduce_any(cleaned != "").numpy():
        bare = keras_hub.models.BertTokenizer(SPECIAL_TOKENS, lowercase=True)
        return TextTokenizer(bare, max_tokens)
    vocabulary = compute_word_piece_vocabulary(
        tf.data.Dataset.from_tensors(cleaned).unbatch(),
        vocabulary_size,
        lowercase=True,
        reserved_tokens=SPECIAL_TOKENS,
    )
    return TextTokenizer(keras_hub.models.BertTokenizer(vocabulary, lowercase=True), max_tokens)


def load_tokenizer(preset: str, max_tokens: int) -> TextTokenizer:
    """Loads a preset's tokenizer: a KerasHub name, a preset folder, or a Hugging Face folder.

    An uncased BERT was trained on text without accents (Devlin et al. 2019, `BasicTokenizer`),
    but KerasHub's presets do not record this: "café" would be an unknown word.

    Raises:
        PresetError: If it cannot be loaded.
    """
    try:
        tokenizer = keras_hub.models.BertTokenizer.from_preset(preset)
        strip_accents = tokenizer.strip_accents or tokenizer.lowercase
        bare = keras_hub.models.BertTokenizer(
            tokenizer.get_vocabulary(), lowercase=tokenizer.lowercase, strip_accents=strip_accents
        )
        return TextTokenizer(bare, max_tokens)
    except Exception as error:  # KerasHub, Kaggle and Hugging Face raise whatever they like
        raise PresetError(f"{preset}: no tokenizer can be loaded from it: {error}") from error


def read_tokenizer(folder: Path) -> TextTokenizer:
    """Reads what `TextTokenizer.save` wrote.

    Raises:
        RunError: If it is missing or damaged.
    """
    try:
        settings = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
        vocabulary = (folder / VOCABULARY_FILE).read_text(encoding="utf-8").split("\n")[:-1]
        max_tokens = settings.pop("max_tokens")
        unknown_limit = settings.pop("unknown_limit", MOSTLY)  # older runs have none
        tokenizer = keras_hub.models.BertTokenizer(vocabulary, **settings)
        return TextTokenizer(tokenizer, max_tokens, unknown_limit)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(f"{folder}: contains no readable tokenizer: {error}") from error
