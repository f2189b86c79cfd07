"""An explanation as one HTML page that needs nothing else: no script, no style sheet, no picture from elsewhere.

Colours are orange and blue of Okabe and Ito (2008), which colour-blind readers can tell apart;
signs, line styles and tables say the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from eczema_tf.schema import NOTICE
from eczema_tf.symptoms.cues import describe_category

HEAD_NAMES = {"image": "from the photo", "text": "from the text", "fusion": "overall"}
STRONGEST = 0.45  # opacity of the strongest phrase: its words stay readable on it
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def format_page(
    answer: Mapping[str, Any], text: str, photo: str | None, overlay: str | None
) -> str:
    """Formats an explanation.

    Args:
        answer: As in `explanation.json`.
        text: As the user wrote it.
        photo: A data URI, or None.
        overlay: A data URI, or None.

    Returns:
        A whole HTML page. Whatever the text holds is shown, not run.
    """
    parts = [
        f"<h1>Why this answer</h1><p class='notice' role='note'>{escape(NOTICE)}</p>",
        _format_probabilities(answer),
        _format_contributions(answer["contributions"], answer["image_used"], answer["text_used"]),
        _format_pictures(answer, photo, overlay),
        _format_text(answer.get("text"), text),
    ]
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    head = (
        "<meta charset='utf-8'><meta name='viewport' content='width=device-width, initial-scale=1'>"
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>Eczema assistant: why this answer</title><style>{style}</style>"
    )
    footer = f"<footer class='soft'>{escape(NOTICE)}</footer>"
    return (
        "<!doctype html>\n<html"
        f" lang='en'><head>{head}</head>\n<body><main>{''.join(parts)}</main>{footer}</body></html>\n"
    )


def _format_probabilities(answer: Mapping[str, Any]) -> str:
    rows = []
    for modality, name in HEAD_NAMES.items():
        value = answer["eczema"][modality]
        threshold = answer["thresholds"][modality] if answer["thresholds"] else None
        rows.append(
            [
                f"eczema, {name}",
                *_share(value),
                "" if threshold is None else f"validation threshold {threshold:.2f}",
            ]
        )
    for title, head in (("the text suggests", "consistency"), ("severity, if eczema", "severity")):
        rows += [
            [f"{title}: {label}", *_share(value), ""]
            for label, value in (answer[head] or {}).items()
        ]
    return f"<h2>Probabilities</h2>{_table(('', 'probability', '', ''), rows)}"


def _share(value: float | None) -> tuple[str, str]:
    if value is None:
        return "not given", ""
    return f"{value:.2f}", f"<span style='width:{100 * value:.0f}%'></span>"


def _format_contributions(split: Mapping[str, float], image_used: bool, text_used: bool) -> str:
    rows = [["knowing neither", f"{split['neither']:+.2f}"]]
    rows += [["the photo", f"{split['image']:+.2f}"]] if image_used else []
    rows += [["the text", f"{split['text']:+.2f}"]] if text_used else []
    rows.append(["together", f"{split['logit']:+.2f}"])
    said = (
        "What moved the overall answer, in logits: above 0 speaks for eczema, below 0 against"
        " (Shapley values)."
    )
    return f"<h2>Photo and text</h2><p class='soft'>{said}</p>{_table(('', 'logits'), rows)}"


def _format_pictures(answer: Mapping[str, Any], photo: str | None, overlay: str | None) -> str:
    if photo is None or overlay is None:
        return "<h2>Photo</h2><p>No photo was given.</p>"
    seen = _describe_peak(answer["heatmap"], answer["explained"])
    return (
        f"<h2>Photo</h2><div class='pictures'><figure><img src='{photo}' alt='The photo as it was"
        f" given, upright'><figcaption>The photo</figcaption></figure><figure><img src='{overlay}'"
        f" alt='{escape(seen)}'><figcaption>{escape(seen)}</figcaption></figure></div>"
    )


def _describe_peak(heatmap: Mapping[str, Any], explained: Mapping[str, str]) -> str:
    what = f"{heatmap['method']}, evidence {explained['direction']} {explained['target']}"
    if not heatmap["evidence"]:
        return f"{what}: none was found in the photo"
    across, down = heatmap["peak"]["x"], heatmap["peak"]["y"]
    place = " ".join(
        [
            ("top", "middle", "bottom")[min(int(3 * down), 2)],
            ("left", "centre", "right")[min(int(3 * across), 2)],
        ]
    )
    return f"{what}: strongest at the {place} ({across:.0%} from the left, {down:.0%} from the top)"


def _format_text(told: Mapping[str, Any] | None, text: str) -> str:
    if told is None:
        return "<h2>Text</h2><p>No text was given.</p>"
    legend = (
        "Solid orange underline: speaks for the target. Dashed blue underline: speaks against it."
        " The stronger the colour, the more."
    )
    phrases = [
        [escape(phrase["text"]), _sign(phrase["score"]), f"{phrase['score']:+.2f}"]
        for phrase in told["phrases"]
    ]
    return (
        f"<h2>Text</h2><p class='told'>{_highlight(text, told['phrases'])}</p><p"
        f" class='soft'>{legend}</p>"
        f"{_table(('phrase', 'speaks', 'logits'), phrases)}{_format_cues(told['cues'])}{_format_criteria(told['criteria'], text)}"
    )


def _highlight(text: str, phrases: Sequence[Mapping[str, Any]]) -> str:
    highest = max((abs(phrase["score"]) for phrase in phrases), default=1.0)
    result, done = [], 0
    for phrase in sorted(phrases, key=lambda phrase: phrase["start"]):
        strength = STRONGEST * abs(phrase["score"]) / highest
        words = escape(text[phrase["start"] : phrase["end"]])
        mark = (
            f"<mark class='{_sign(phrase['score'])}' style='--strength:{strength:.2f}'"
            f" title='{phrase['score']:+.2f}'>{words}</mark>"
        )
        result += [escape(text[done : phrase["start"]]), mark]
        done = phrase["end"]
    return "".join([*result, escape(text[done:])])


def _sign(score: float) -> str:
    return "for" if score > 0 else "against"


def _format_cues(cues: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            escape(describe_category(cue["category"])),
            escape(cue["text"]),
            cue["status"],
            cue["subject"],
            f"{cue['attribution']:+.2f}",
        ]
        for cue in cues
    ]
    if not rows:
        return "<h2>Symptoms mentioned</h2><p>None that the fixed vocabulary knows.</p>"
    return (
        "<h2>Symptoms"
        f" mentioned</h2>{_table(('symptom', 'words', 'status', 'whose', 'logits'), rows)}"
    )


def _format_criteria(criteria: Mapping[str, Any], text: str) -> str:
    rows = [
        [
            escape(entry["criterion"]),
            entry["status"],
            escape("; ".join(text[start:end] for start, end in entry["cues"])),
        ]
        for entry in criteria["read"]
    ]
    table = _table(("criterion", "in the text", "words"), rows)
    return (
        f"<h2>UK Working Party criteria</h2><p class='soft'>{escape(criteria['notice'])}</p>{table}"
    )


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML already; figures are set right, bars get room."""
    head = "".join(_column(name) for name in names)
    body = "".join(
        f"<tr>{''.join(_cell(place, value) for place, value in enumerate(row))}</tr>"
        for row in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div class='wide' tabindex='0' role='region' aria-label='table'>{table}</div>"


def _column(name: str) -> str:
    if not name:
        return "<td></td>"
    return (
        f"<th scope='col' class='number'>{name}</th>"
        if name in ("probability", "logits")
        else f"<th scope='col'>{name}</th>"
    )


def _cell(place: int, value: str) -> str:
    if place == 0:
        return f"<th scope='row'>{value}</th>"
    if value.startswith("<span style"):
        return f"<td class='bar'>{value}</td>"
    return (
        f"<td class='number'>{value}</td>"
        if value[:1] in "+-0123456789" and value
        else f"<td>{value}</td>"
    )
