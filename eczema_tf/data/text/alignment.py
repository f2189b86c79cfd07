"""Maps a cleaned text back to the user's own characters, so that highlights fall on them."""

import re
import unicodedata
from dataclasses import dataclass

from eczema_tf.data.text.tokenizer import MARKUP, MIXED_NUMBER
from eczema_tf.schema import MAX_TEXT_BYTES

_MARKUP, _MIXED_NUMBER = re.compile(MARKUP), re.compile(MIXED_NUMBER)
_FORMAT, _BLANK = "Cf", {"Cc", "Zl", "Zp", "Zs"}  # Unicode categories


@dataclass(frozen=True)
class AlignedText:
    """A cleaned text and where its characters come from.

    Attributes:
        cleaned: What `clean_text` returns.
        starts: For each character of `cleaned`, the offset of the characters of the original that
            it was made from.
        ends: For each character of `cleaned`, the offset after these characters.
    """

    cleaned: str
    starts: tuple[int, ...]
    ends: tuple[int, ...]

    def locate(self, start: int, end: int) -> tuple[int, int]:
        """Finds a span of bytes of the cleaned text (UTF-8) in the original.

        Args:
            start: Byte offset into `cleaned`.
            end: Byte offset after the last.

        Returns:
            Character offsets into the original.
        """
        encoded = self.cleaned.encode()
        first = len(encoded[:start].decode(errors="ignore"))
        last = len(encoded[:end].decode(errors="ignore"))
        return (self.starts[first], self.ends[last - 1]) if last > first else (0, 0)


def align_text(original: str) -> AlignedText:
    """Cleans a text as `clean_text` does, and remembers where each character came from.

    Args:
        original: As the user wrote it.
    """
    pieces = _unmark(_normalize(_cut(original)))
    kept: list[tuple[str, int, int]] = []
    for character, start, end in pieces:
        if not _is_space(character):
            kept.append((character, start, end))
        elif kept and kept[-1][0] != " ":
            kept.append((" ", start, end))
    if kept and kept[-1][0] == " ":
        kept.pop()
    characters, starts, ends = zip(*kept, strict=True) if kept else ((), (), ())
    return AlignedText("".join(characters), starts, ends)


def _cut(text: str) -> str:
    """Cuts a text where `clean_text` does; both drop a character that is cut in two."""
    return text.encode("utf-8", "replace")[:MAX_TEXT_BYTES].decode("utf-8", "replace")


def _normalize(text: str) -> list[tuple[str, int, int]]:
    """Applies NFKC without format characters, in stretches that do not interact.

    Each stretch begins with a character that composes with none before it.
    """
    places = [at for at, letter in enumerate(text) if unicodedata.category(letter) != _FORMAT]
    shown = "".join(text[at] for at in places)
    pieces, start = [], 0
    for stop in range(1, len(shown) + 1):
        if stop == len(shown) or _is_boundary(shown[start:stop], shown[stop]):
            if _MIXED_NUMBER.fullmatch(shown[max(start - 1, 0) : start + 1]):
                pieces.append((" ", places[start], places[start]))
            pieces += [
                (character, places[start], places[stop - 1] + 1)
                for character in unicodedata.normalize("NFKC", shown[start:stop])
            ]
            start = stop
    return pieces


def _is_boundary(before: str, character: str) -> bool:
    if character.isascii():
        return True
    if unicodedata.combining(character):  # without a look at the thousands that may precede it
        return False
    together = unicodedata.normalize("NFKC", before + character)
    apart = [unicodedata.normalize("NFKC", part) for part in (before, character)]
    return together == "".join(apart)


def _unmark(pieces: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Replaces markup with spaces."""
    text, result, done = "".join(character for character, _, _ in pieces), [], 0
    for match in _MARKUP.finditer(text):
        result += [
            *pieces[done : match.start()],
            (" ", pieces[match.start()][1], pieces[match.end() - 1][2]),
        ]
        done = match.end()
    return [*result, *pieces[done:]]


def _is_space(character: str) -> bool:
    return character in "\t\n\f\r\v\ufffd" or unicodedata.category(character) in _BLANK
