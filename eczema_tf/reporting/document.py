"""Documents of sections, as a web page or as Markdown: what a report says is written once, how it looks stands here.

Everything given is plain text: whatever it holds is shown, never run. The page needs nothing else:
no script, no style sheet and no picture from elsewhere.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from eczema_tf.schema import NOTICE

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_NUMBER = re.compile(
    r"[-+]?\d[\d.,]*%?( \[.*\])?|-"
)  # a figure, perhaps with its interval, or none


@dataclass(frozen=True)
class Table:
    """Figures in rows; the first cell of a row says what the row is."""

    caption: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Pictures:
    """PNG files side by side: each with what it shows, for those who do not see it, and a caption."""

    pictures: Sequence[tuple[Path, str, str]]


@dataclass(frozen=True)
class Warned:
    """A paragraph that nobody should miss."""

    text: str


Block = str | Table | Bullets | Pictures | Warned


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it; a string is a paragraph."""

    title: str
    blocks: Sequence[Block]


def format_page(title: str, sections: Sequence[Section]) -> str:
    """Formats a document as HTML, pictures included, with the notice at its top and bottom."""
    style = Path(__file__).with_name("pages.css").read_text(encoding="utf-8")
    head = (
        "<meta charset='utf-8'><meta name='viewport' content='width=device-width, initial-scale=1'>"
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{escape(title)}</title><style>{style}</style>"
    )
    top = f"<h1>{escape(title)}</h1><p class='notice' role='note'>{escape(NOTICE)}</p>"
    body = "".join(
        f"<h2>{escape(section.title)}</h2>{''.join(map(_to_html, section.blocks))}"
        for section in sections
    )
    footer = f"<footer class='soft'>{escape(NOTICE)}</footer>"
    return (
        "<!doctype html>\n<html"
        f" lang='en'><head>{head}</head>\n<body><main>{top}{body}</main>{footer}</body></html>\n"
    )


def _to_html(block: Block) -> str:
    match block:
        case Table():
            return _table_to_html(block)
        case Bullets():
            return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in block.lines)}</ul>"
        case Pictures():
            return (
                "<div"
                f" class='pictures'>{''.join(_picture_to_html(*picture) for picture in block.pictures)}</div>"
            )
        case Warned():
            return f"<p class='warning' role='note'>{escape(block.text)}</p>"
    return f"<p>{escape(block)}</p>"


def _table_to_html(table: Table) -> str:
    numbers = [
        all(_NUMBER.fullmatch(row[place]) for row in table.rows)
        for place in range(len(table.columns))
    ]
    kinds = [" class='number'" if number else "" for number in numbers]
    head = "".join(
        f"<th scope='col'{kind}>{escape(name)}</th>"
        for name, kind in zip(table.columns, kinds, strict=True)
    )
    body = "".join(
        f"<tr><th scope='row'>{escape(row[0])}</th>"
        + "".join(
            f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(row[1:], kinds[1:], strict=True)
        )
        + "</tr>"
        for row in table.rows
    )
    caption = escape(table.caption, quote=True)
    return (  # a wide table scrolls in its own box, by keyboard too
        "<div class='wide' tabindex='0' role='region'"
        f" aria-label='{caption}'><table><caption>{caption}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _picture_to_html(file: Path, shows: str, caption: str) -> str:
    data = base64.b64encode(file.read_bytes()).decode()
    image = f"<img src='data:image/png;base64,{data}' alt='{escape(shows, quote=True)}'>"
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def format_markdown(title: str, sections: Sequence[Section]) -> str:
    """Formats a document as GitHub-flavoured Markdown, with the notice at its top and bottom; pictures are named relative to it."""
    parts = [f"# {_plain(title)}", f"> {_plain(NOTICE)}"]
    for section in sections:
        parts += [f"## {_plain(section.title)}", *map(_to_markdown, section.blocks)]
    return "\n\n".join([*parts, f"> {_plain(NOTICE)}"]) + "\n"


def _to_markdown(block: Block) -> str:
    match block:
        case Table():
            rows = [block.columns, ["---"] * len(block.columns), *block.rows]
            return "\n".join(
                [
                    f"{_plain(block.caption)}\n",
                    *(f"| {' | '.join(map(_cell, row))} |" for row in rows),
                ]
            )
        case Bullets():
            return "\n".join(f"- {_plain(line)}" for line in block.lines)
        case Pictures():
            return "\n\n".join(
                f"![{_plain(shows)}]({file.name})" for file, shows, _ in block.pictures
            )
        case Warned():
            return f"**{_plain(block.text)}**"
    return _plain(block)


def _plain(text: str) -> str:
    """One line in which nothing is HTML, emphasis, code or a link."""
    shown = escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*])", r"\\\1", shown).replace("](", "]\\(")


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")
