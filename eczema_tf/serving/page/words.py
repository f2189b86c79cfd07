"""The text of an answer as HTML: the phrases that moved it, the symptoms it mentions or denies, and the criteria it speaks to."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from eczema_tf.serving.page.html import escape, format_section, format_sign, format_signed

STRONGEST = 0.45  # opacity of the strongest phrase: its words stay readable on it
SHOWN_PHRASES = 8
STATUS = {
    "present": ("\N{CHECK MARK}", "mentioned"),
    "negated": ("\N{MULTIPLICATION X}", "denied"),
    "uncertain": ("?", "in doubt"),
}
CRITERION = {
    "mentioned": STATUS["present"],
    "denied": STATUS["negated"],
    "open": ("\N{EN DASH}", "left open"),
}


def format_words(text: str, phrases: Sequence[Mapping[str, Any]]) -> str:
    """Formats a text with its phrases highlighted by sign and strength, and a table that says the same.

    Args:
        text: As the user wrote it.
        phrases: With `start`, `end`, `text` and `score`, the strongest first; the first
            `SHOWN_PHRASES` are shown.
    """
    phrases = phrases[:SHOWN_PHRASES]
    key = "<mark class='for'>for eczema</mark> <mark class='against'>against eczema</mark>"
    legend = (
        f"<p class='soft key'>{key} The strongest phrases; the stronger the colour, the more. A"
        " quick estimate (gradient times input).</p>"
    )
    rows = "".join(
        f"<tr><th scope='row'>{escape(phrase['text'])}</th><td>{format_sign(phrase['score'])}</td>"
        f"<td class='number'>{format_signed(phrase['score'])}</td></tr>"
        for phrase in phrases
    )
    table = (
        "<details><summary>The same as a table</summary><table class='figures'><thead><tr><th"
        " scope='col'>phrase</th><th scope='col'>speaks</th><th scope='col'"
        f" class='number'>log-odds</th></tr></thead><tbody>{rows}</tbody></table></details>"
    )
    return format_section(
        "words",
        "Which words",
        f"<p class='told'>{_highlight(text, phrases)}</p>",
        legend,
        table if rows else "",
    )


def _highlight(text: str, phrases: Sequence[Mapping[str, Any]]) -> str:
    highest = max((abs(phrase["score"]) for phrase in phrases), default=1.0)
    result, done = [], 0
    for phrase in sorted(phrases, key=lambda phrase: phrase["start"]):
        sign, strength = format_sign(phrase["score"]), STRONGEST * abs(phrase["score"]) / highest
        words = escape(text[phrase["start"] : phrase["end"]])
        said = f"<span class='sr'> ({sign})</span>"
        result += [
            escape(text[done : phrase["start"]]),
            f"<mark class='{sign}' style='--strength:{strength:.2f}'>{words}{said}</mark>",
        ]
        done = phrase["end"]
    return "".join([*result, escape(text[done:])])


def format_cues(cues: Sequence[Mapping[str, Any]]) -> str:
    """Formats symptoms by category.

    Args:
        cues: With `describes`, `text`, `status` and `subject`.
    """
    if not cues:
        return format_section(
            "symptoms", "Symptoms in the text", "<p>None that the fixed list of phrases knows.</p>"
        )
    by_category = groupby(
        sorted(cues, key=lambda cue: cue["describes"]), lambda cue: cue["describes"]
    )
    rows = "".join(
        f"<div><dt>{escape(words)}</dt><dd>{_format_chips(found)}</dd></div>"
        for words, found in by_category
    )
    hint = "<p class='soft'>Found by a fixed list of phrases, not by the model.</p>"
    return format_section("symptoms", "Symptoms in the text", f"<dl class='cues'>{rows}</dl>", hint)


def _format_chips(cues: Iterable[Mapping[str, Any]]) -> str:
    """The same words with the same meaning are shown once."""
    chips = dict.fromkeys((cue["text"].casefold(), cue["status"], cue["subject"]) for cue in cues)
    return " ".join(_format_chip(*chip) for chip in chips)


def _format_chip(words: str, status: str, subject: str) -> str:
    sign, said = STATUS[status]
    whose = ", in the family" if subject == "family" else ""
    return (
        f"<span class='chip {status}'><i aria-hidden='true'>{sign}</i> {escape(words)}"
        f" <small>{said}{whose}</small></span>"
    )


def format_criteria(criteria: Mapping[str, Any], text: str) -> str:
    """Formats what the text says about the criteria, folded away.

    Args:
        criteria: `notice`, and `read`: a list with `criterion`, `status` and `cues` (offsets into
            the text).
        text: As the user wrote it.
    """
    rows = "".join(_format_criterion(entry, text) for entry in criteria["read"])
    told = sum(entry["status"] == "mentioned" for entry in criteria["read"])
    summary = f"<summary>{told} of {len(criteria['read'])} criteria mentioned</summary>"
    head = "<thead><tr><th scope='col'>criterion</th><th scope='col'>in the text</th></tr></thead>"
    table = f"<table class='criteria'>{head}<tbody>{rows}</tbody></table>"
    notice = f"<p class='soft'>{escape(criteria['notice'])}</p>"
    return format_section(
        "criteria", "UK Working Party criteria", f"<details>{summary}{notice}{table}</details>"
    )


def _format_criterion(entry: Mapping[str, Any], text: str) -> str:
    sign, said = CRITERION[entry["status"]]
    words = "; ".join(
        dict.fromkeys(escape(text[start:end].casefold()) for start, end in entry["cues"])
    )
    quoted = f" <small>{words}</small>" if words else ""
    return (
        f"<tr><th scope='row'>{escape(entry['criterion'])}</th><td><i aria-hidden='true'>{sign}</i>"
        f" {said}{quoted}</td></tr>"
    )
