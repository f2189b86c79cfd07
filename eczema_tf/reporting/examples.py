"""The surest answers, right and wrong: which cases, and on request their photos and texts."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from eczema_tf.evaluation.predictions import PROBABILITY_COLUMNS
from eczema_tf.evaluation.records import Metrics
from eczema_tf.reporting.answer import Explanation
from eczema_tf.reporting.answer_html import draw_pictures, find_full_colour, split_at_phrases
from eczema_tf.reporting.document import Block, Rendered, Section, Table, Warned
from eczema_tf.reporting.formats import HEAD_NAMES, format_number
from eczema_tf.reporting.html import format_percent, render_template
from eczema_tf.reporting.tables import mark_leaks

TITLE, SHOWN = "The surest answers, right and wrong", 5
_SHOWN_PHRASES = 5  # of a text, those that moved the answer most
_WITHOUT = (
    "Ordered by distance from the threshold, in log-odds, without cases where the model cannot"
    " tell. A confidently wrong answer may also be a wrong label: look at the case."
)
_WITH = (
    "Photos and texts of patients follow: do not share this page. Colours show what in a photo"
    " counts for {}"
)


class ShownCase(NamedTuple):
    """A case that may be shown.

    Attributes:
        why: Why it was answered so.
        photos: Upright JPEGs.
        text: Its text, "" for none.
        texts: How many different texts its rows have; `text` is the first of them.
    """

    why: Explanation
    photos: Sequence[bytes]
    text: str
    texts: int = 1


def build_examples(
    surest: Mapping[str, pd.DataFrame], metrics: Metrics, shown: Mapping[str, ShownCase]
) -> Section:
    """Builds the section.

    Args:
        surest: From `find_surest`.
        metrics: Of the evaluation.
        shown: By case id, the cases whose photos and texts are shown; the others have only numbers.
    """
    positive, blocks = metrics.positive_class, list[Block]([_WITHOUT])
    full = find_full_colour(heatmap for case in shown.values() for heatmap in case.why.heatmaps)
    if shown:
        scale = "; the brightest adds {:.2f} to the log-odds for each hundredth of its area"
        blocks.append(Warned(f"{_WITH.format(positive)}{scale.format(full) if full else ''}."))
    columns = ("case", "label", "photos", "words", *HEAD_NAMES.values())
    for name, cases in surest.items():
        rows = [_describe_case(case, positive) for case in cases.to_dict("records")]
        title = f"Confidently {name}"
        table = Table(f"{title}: P({positive}) from", columns, rows)
        blocks.append(table if rows else f"{title}: none.")
        told = zip(rows, map(format_percent, cases["p_fusion"]), strict=True)
        blocks += [
            _render_case(
                f"{title}: {case_id}, {label}, P({positive}) {probability}",
                positive,
                shown[case_id],
                full,
            )
            for (case_id, label, *_), probability in told
            if case_id in shown
        ]
    return Section(TITLE, mark_leaks(metrics, blocks))


def _render_case(title: str, positive: str, case: ShownCase, full: float | None) -> Rendered:
    phrases = case.why.text.phrases[:_SHOWN_PHRASES] if case.why.text else ()
    if case.text and case.texts > 1:
        title += f", with the first of its {case.texts} texts"
    return Rendered(
        render_template(
            "example",
            title=title,
            positive=positive,
            pictures=draw_pictures(case.photos, case.why.heatmaps, full),
            pieces=split_at_phrases(case.text, phrases),
        )
    )


def _describe_case(case: Mapping[Hashable, Any], positive: str) -> list[str]:
    figures = [case[column] for column in PROBABILITY_COLUMNS.values()]
    return [
        str(case["case_id"]),
        positive if case["positive"] else f"not {positive}",
        str(case["photos"]),
        str(case.get("text_words", "some")) if case["text_used"] else "none",
        *(format_number(None if pd.isna(figure) else figure) for figure in figures),
    ]
