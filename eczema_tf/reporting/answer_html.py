"""An answer as HTML, for both the web page and `explanation.html`.

Evidence is shown in the orange and blue of Okabe and Ito (2008), which colour-blind readers can
tell apart; signs, line styles and tables repeat the information.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from scipy.special import expit

from eczema_tf.explanation.spans import Span
from eczema_tf.reporting.answer import Answer, Explanation, Heatmap
from eczema_tf.reporting.html import format_sign, render_template
from eczema_tf.reporting.pictures import as_data_url, paint_heatmap, shrink_photo
from eczema_tf.schema import HEATMAP_METHODS
from eczema_tf.symptoms.cues import CRITERIA_NOTICE, Cue, describe_category

Mention = tuple[str, str, str]  # words, status and subject of a `symptoms.cues.Cue`
STYLE_SHEET = Path(__file__).with_name("answer.css")
SHOWN_PHRASES = 8
STRENGTHS = 10  # shades of a phrase's colour, as many as answer.css has


class Piece(NamedTuple):
    """A stretch of a text: a phrase that moved the answer, or the words between two phrases."""

    text: str
    sign: str = ""
    strength: int = 0


class ShownPhoto(NamedTuple):
    """A photo that was used, and its heatmap, as data URLs.

    Attributes:
        number: Of the photo, from 1.
        heatmap: The heatmap that is shown.
        where: Where the heatmap is strongest; "" for no evidence.
        photo_url: The photo.
        heatmap_url: The heatmap, to be stretched over the photo.
    """

    number: int
    heatmap: Heatmap
    where: str
    photo_url: str
    heatmap_url: str


def render_answer(
    answer: Answer,
    photos: Sequence[bytes],
    text: str,
    *,
    faults: Sequence[str] = (),
    photo_refused: bool = False,
    interactive: bool = True,
) -> str:
    """Renders an explained answer.

    Args:
        answer: With its explanation.
        photos: The upright JPEGs that were asked about; b"" for one that could not be shown.
        text: As the user wrote it.
        faults: Problems found before the model was asked.
        photo_refused: Whether a photo was given that is not among those the model was asked about.
        interactive: Whether a script moves the heatmap's slider. If not, there is no slider, and
            all phrases and every symptom's score are listed.

    Returns:
        An HTML fragment. Whatever the text contains is shown, never run.
    """
    if (why := answer.explanation) is None:
        raise ValueError("an answer without an explanation has no page")
    faults = [*faults, *(answer.status.split("; ") if answer.status != "ok" else [])]
    phrases, cues = (why.text.phrases, why.text.cues) if why.text else ((), ())
    shown = phrases[:SHOWN_PHRASES] if interactive else phrases
    full = find_full_colour(why.heatmaps)
    return render_template(
        "answer",
        answer=answer,
        why=why,
        target=why.target.replace("_", " ").replace(":", ": "),
        faults=faults,
        photo_refused=photo_refused
        or any(not fault.startswith(("text: ", "clinical: ")) for fault in faults),
        interactive=interactive,
        start=expit(why.contributions.neither),
        shares=rank_shares(answer, why),
        several=answer.photos > 1,
        full=full,
        pictures=draw_pictures(photos, why.heatmaps, full),
        method=next((HEATMAP_METHODS[one.method] for one in why.heatmaps if one), ""),
        phrases=shown,
        pieces=split_at_phrases(text, shown),
        symptoms=group_mentions(cues),
        criteria_notice=CRITERIA_NOTICE,
        notice=answer.notice,
    )


def find_full_colour(heatmaps: Iterable[Heatmap | None]) -> float | None:
    """Finds what full colour stands for in all heatmaps that show evidence, as `Heatmap.scale`."""
    shown = [heatmap for heatmap in heatmaps if heatmap and heatmap.peak]
    return max((heatmap.scale for heatmap in shown if heatmap.scale), default=None)


def draw_pictures(
    photos: Sequence[bytes], heatmaps: Sequence[Heatmap | None], full: float | None
) -> list[ShownPhoto]:
    """Draws the photos that have a heatmap, together with it.

    Args:
        photos: As in `render_answer`.
        heatmaps: One for each photo.
        full: From `find_full_colour`.
    """
    return [
        ShownPhoto(
            number,
            heatmap,
            describe_peak(heatmap.peak),
            as_data_url(shrink_photo(photo), "jpeg"),
            as_data_url(paint_heatmap(heatmap.on_scale(full)), "png"),
        )
        for number, (photo, heatmap) in enumerate(zip(photos, heatmaps, strict=False), 1)
        if heatmap
    ]


def render_explanation_page(answer: Answer, photos: Sequence[bytes], text: str) -> str:
    """Renders `explanation.html`: one file that needs nothing else, and may load nothing else.

    Args:
        answer: With its explanation.
        photos: As in `render_answer`.
        text: As in `render_answer`.
    """
    fragment = render_answer(answer, photos, text, interactive=False)
    style = STYLE_SHEET.read_text(encoding="utf-8")
    return render_template("explanation", fragment=fragment, style=style, notice=answer.notice)


def rank_shares(answer: Answer, explanation: Explanation) -> list[tuple[str, float]]:
    """Ranks photo, text and clinical fields, if used, by how far each moved the answer."""
    photo, moved = "the photos" if answer.photos > 1 else "the photo", explanation.contributions
    shares = [(photo, moved.image)] if answer.image_used else []
    shares += [("the text", moved.text)] if answer.text_used else []
    shares += [("the clinical fields", moved.clinical)] if moved.clinical else []
    return sorted(shares, key=lambda share: -abs(share[1]))


def describe_peak(peak: tuple[float, float] | None) -> str:
    """Says where a heatmap is strongest: "top left (20% from the left, 30% from the top)"."""
    if peak is None:
        return ""
    right, down = peak
    row = ("top", "middle", "bottom")[min(int(3 * down), 2)]
    column = ("left", "centre", "right")[min(int(3 * right), 2)]
    place = "centre" if (row, column) == ("middle", "centre") else f"{row} {column}"
    return f"{place} ({right:.0%} from the left, {down:.0%} from the top)"


def split_at_phrases(text: str, phrases: Sequence[Span]) -> list[Piece]:
    """Splits a text into phrases, with their sign and strength (1 to `STRENGTHS`), and the rest."""
    highest = max((abs(phrase.score) for phrase in phrases), default=1.0)
    pieces, done = [], 0
    for phrase in sorted(phrases, key=lambda phrase: phrase.start):
        strength = max(round(STRENGTHS * abs(phrase.score) / highest), 1)
        pieces += [
            Piece(text[done : phrase.start]),
            Piece(phrase.text, format_sign(phrase.score), strength),
        ]
        done = phrase.end
    return [*pieces, Piece(text[done:])]


def group_mentions(cues: Iterable[Cue]) -> list[tuple[str, dict[Mention, float]]]:
    """Groups mentions by symptom, with how far they moved the answer; repeats count once."""
    symptoms: dict[str, dict[Mention, float]] = {}
    for cue in cues:
        mentions = symptoms.setdefault(describe_category(cue.category), {})
        mention = cue.text.casefold(), cue.status, cue.subject
        mentions[mention] = mentions.get(mention, 0.0) + (cue.attribution or 0.0)
    return sorted(symptoms.items())
