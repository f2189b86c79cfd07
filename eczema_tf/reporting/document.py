"""Documents of sections, as a web page, as Markdown or as plain text for the terminal.

What a report says is written once, as sections; how it looks is decided here. All content is plain
text: whatever it contains is shown, never run. The page needs nothing else: no script, style sheet
or picture from elsewhere.
"""

import base64
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from eczema_tf.errors import mask_controls
from eczema_tf.reporting.html import render_template
from eczema_tf.schema import NOTICE

TEXT_COLUMNS = 100
# a number, perhaps with its interval; a bound; or "-" for undefined
_NUMERIC_CELL = re.compile(r"(< )?[-+]?\d[\d.,]*%?( \[.*\])?|-")


@dataclass(frozen=True)
class Table:
    """Numbers in rows; the first cell of a row says what the row is."""

    caption: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]

    @property
    def numeric(self) -> list[bool]:
        """Which columns contain only numbers, and so are aligned right.

        Raises:
            ValueError: If a row is not as long as the header.
        """
        cells = zip(*self.rows, strict=True) if self.rows else [()] * len(self.columns)
        return [
            all(_NUMERIC_CELL.fullmatch(cell) for cell in column)
            for _, column in zip(self.columns, cells, strict=True)
        ]


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Picture:
    """A PNG file, what it shows (for those who cannot see it), and a caption."""

    file: Path
    shows: str
    caption: str

    @property
    def url(self) -> str:
        """The picture itself, as a data URL."""
        return f"data:image/png;base64,{base64.b64encode(self.file.read_bytes()).decode()}"


@dataclass(frozen=True)
class Pictures:
    """Pictures side by side."""

    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Warned:
    """A paragraph that nobody should miss."""

    text: str


@dataclass(frozen=True)
class Rendered:
    """HTML that one of our templates rendered, for pages only."""

    html: str


Block = str | Table | Bullets | Pictures | Warned | Rendered  # a string is a paragraph


@dataclass(frozen=True)
class Section:
    """A heading, of level 2 or below, and the content under it."""

    title: str
    blocks: Sequence[Block]
    level: int = 2


def format_page(title: str, sections: Sequence[Section], notice: str = NOTICE) -> str:
    """Formats a document as one HTML page, pictures included, with the notice top and bottom."""
    style = Path(__file__).with_name("pages.css").read_text(encoding="utf-8")
    return render_template("document", title=title, sections=sections, style=style, notice=notice)


def format_markdown(title: str, sections: Sequence[Section], notice: str = NOTICE) -> str:
    """Formats a document as GitHub-flavoured Markdown; picture paths are relative to it."""
    parts = [f"# {_escape(title)}", f"> {_escape(notice)}"]
    for section in sections:
        parts.append(f"{'#' * section.level} {_escape(section.title)}")
        for block in section.blocks:
            match block:
                case Table():
                    rows = [block.columns, ["---"] * len(block.columns), *block.rows]
                    cells = [[_escape(cell).replace("|", "\\|") for cell in row] for row in rows]
                    parts.append(_escape(block.caption))
                    parts.append("\n".join(f"| {' | '.join(row)} |" for row in cells))
                case Bullets():
                    parts.append("\n".join(f"- {_escape(line)}" for line in block.lines))
                case Pictures():
                    parts += [f"![{_escape(one.shows)}]({one.file.name})" for one in block.pictures]
                case Warned():
                    parts.append(f"**{_escape(block.text)}**")
                case str():
                    parts.append(_escape(block))
    return "\n\n".join([*parts, f"> {_escape(notice)}"]) + "\n"


def _escape(text: str) -> str:
    """Escapes a text to one line without HTML, emphasis, code or links."""
    shown = escape(" ".join(text.split()), quote=False)
    marks = r"([\\`*~]|\b_|_\b|_(?=_)|(?<=_)_)"
    return re.sub(marks, r"\\\1", shown).replace("](", "]\\(")


def format_text(sections: Iterable[Section], notice: str = NOTICE) -> str:
    """Formats sections as plain text of at most `TEXT_COLUMNS` columns, with the notice at the end.

    Wider tables stay whole; headings and pictures are left out. A notice of "" means none.
    """
    parts = []
    for section in sections:
        for block in section.blocks:
            match block:
                case Table():
                    parts.append(f"{_wrap(block.caption)}\n{_align(block)}")
                case Bullets():
                    parts.append("\n".join(_wrap(line, "- ") for line in block.lines))
                case Warned():
                    parts.append(_wrap(f"WARNING: {block.text}"))
                case str():
                    parts.append(_wrap(block))
    return mask_controls("\n\n".join([*parts, *([_wrap(notice)] if notice else [])]))


def _wrap(text: str, bullet: str = "") -> str:
    indent = " " * len(bullet)
    return textwrap.fill(text, TEXT_COLUMNS, initial_indent=bullet, subsequent_indent=indent)


def _align(table: Table) -> str:
    """Makes columns as wide as their widest cell; aligns numbers without an interval right."""
    rows = [table.columns, *table.rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = [
        numeric and not any("[" in row[index] for row in table.rows)
        for index, numeric in enumerate(table.numeric)
    ]
    lines = [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join(lines)
