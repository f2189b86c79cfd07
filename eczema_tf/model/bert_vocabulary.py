"""The text half of a Hugging Face BERT: its vocabulary, and whether text keeps its capitals.

In: `vocab.txt` and `tokenizer_config.json`. Out: the word pieces in the order of their ids, and a
`Casing` that says how it is known.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eczema_tf.data.text.tokenizer import SPECIAL_TOKENS
from eczema_tf.errors import PresetError

CONFIG, VOCABULARY, TOKENIZER_CONFIG = "config.json", "vocab.txt", "tokenizer_config.json"
MOST_PADDING_ROWS = (
    128  # some embedding tables are padded to a round size; a vocabulary shorter than that was cut
)


@dataclass(frozen=True)
class Casing:
    """How text is folded before it is cut into word pieces, and how that is known."""

    cased: bool
    strip_accents: bool
    evidence: str
    warning: str = ""


def read_vocabulary(path: Path, vocab_size: int) -> list[str]:
    """Reads `vocab.txt`, one word piece a line in the order of their ids, as KerasHub does.

    Raises:
        PresetError: If it is missing, not text, lacks BERT's special tokens, or does not fit
            `vocab_size`.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            vocabulary = [line.rstrip() for line in lines]
    except (OSError, UnicodeDecodeError) as error:
        raise PresetError(
            f"{path}: cannot be read ({state_reason(error)}); it must hold one word piece a line,"
            " in UTF-8"
        ) from error
    missing = [token for token in SPECIAL_TOKENS if token not in vocabulary]
    if missing:
        raise PresetError(
            f"{path}: lacks {', '.join(missing)}; this is not the vocabulary of a BERT, or it was"
            " cut short"
        )
    if not 0 <= vocab_size - len(vocabulary) < MOST_PADDING_ROWS:
        raise PresetError(
            f"{path}: has {len(vocabulary)} word pieces, but {CONFIG} says vocab_size {vocab_size};"
            " take both from one place"
        )
    return vocabulary


def decide_casing(
    settings: dict[str, Any], vocabulary: list[str], cased: bool | None = None
) -> Casing:
    """Decides whether text keeps its capitals.

    transformers lower-cases where nothing is said, and so reads Bio_ClinicalBERT and BioBERT
    wrongly (github.com/EmilyAlsentzer/clinicalBERT/issues/26): here the vocabulary is asked
    instead.

    Args:
        settings: `tokenizer_config.json`, or nothing.
        vocabulary: The word pieces.
        cased: What the user says, if anything.
    """
    ordinary = (piece for piece in vocabulary if not re.fullmatch(r"\[.*\]", piece))
    capitals = sum(
        piece != piece.lower() for piece in ordinary
    )  # not isupper: "double-struck R" has no lower case
    counted = f"{VOCABULARY}: {capitals} of {len(vocabulary)} word pieces have capital letters"
    lower = settings.get("do_lower_case")
    if cased is not None:
        evidence = "--cased" if cased else "--uncased"
    elif isinstance(lower, bool):
        cased, evidence = not lower, f"{TOKENIZER_CONFIG}: do_lower_case is {json.dumps(lower)}"
    else:
        cased, evidence = capitals > 0, f"{counted}; no do_lower_case in {TOKENIZER_CONFIG}"
    contradicted = cased != (capitals > 0)
    strip_accents = settings.get("strip_accents")
    return Casing(
        cased=cased,
        strip_accents=(
            strip_accents if isinstance(strip_accents, bool) else not cased
        ),  # BERT's rule
        evidence=evidence,
        warning=(
            f"{evidence}, but {counted}; --{'uncased' if cased else 'cased'} if that is right"
            if contradicted
            else ""
        ),
    )


def read_json_object(path: Path) -> dict[str, Any]:
    """Reads a JSON file whose top is an object."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PresetError(f"{path}: cannot be read as JSON ({state_reason(error)})") from error
    if not isinstance(values, dict):
        raise PresetError(f"{path}: must be a JSON object, received {type(values).__name__}")
    return values


def state_reason(error: Exception) -> str:
    """Returns what an exception says, as one short line."""
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
