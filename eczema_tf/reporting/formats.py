"""How numbers and their names are written in the terminal, on pages and in plots."""

from collections.abc import Iterable, Sequence

from eczema_tf.evaluation.intervals import Difference, Estimate
from eczema_tf.reporting.document import Table

HEAD_NAMES = {"image": "photo", "text": "text", "fusion": "both (fusion)"}
KIND_NAMES = {"image": "photo", "text": "text", "fusion": "both"}
METRIC_NAMES = {
    "auroc": "AUROC",
    "f1": "F1",
    "macro_f1": "macro F1",
    "mae": "mean error",
    "brier": "Brier",
    "ece": "ECE",
    "in_the_large": "too high by",
}


def format_estimate(estimate: Estimate, digits: int = 3) -> str:
    """Formats a value and its interval, `0.872 [0.821, 0.918]`; "-" if it is undefined."""
    if estimate.value is None:
        return "-"
    ends = (estimate.value, estimate.low, estimate.high)
    value, low, high = (format_number(one, digits) for one in ends)
    if estimate.low is None or estimate.high is None:
        return f"{value} [no interval]"
    return f"{value} [{low}, {high}]"


def format_difference(difference: Difference) -> str:
    """Formats a difference with interval and p-value, `+0.051 [0.021, 0.080] (p 0.001)`."""
    sign = "+" if difference.value is not None and difference.value >= 0 else ""
    p = "" if difference.p is None else f" (p {format_p(difference.p)})"
    return f"{sign}{format_estimate(difference)}{p}"


def format_p(p: float | None) -> str:
    """Formats a p-value; "-" without one."""
    return "-" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def format_number(value: float | None, digits: int = 3) -> str:
    """Formats a value without an interval; "-" if it is undefined."""
    # + 0.0 turns -0.000 into 0.000
    return "-" if value is None else f"{round(value, digits) + 0.0:.{digits}f}"


def build_table(
    caption: str, columns: tuple[str, ...], rows: Iterable[Sequence[object]], digits: int = 3
) -> Table:
    """Builds a table; estimates get their intervals and `digits` decimals; None becomes "-"."""
    return Table(caption, columns, [[_format_cell(cell, digits) for cell in row] for row in rows])


def _format_cell(cell: object, digits: int) -> str:
    if isinstance(cell, Estimate):
        return format_estimate(cell, digits)
    return format_number(cell) if cell is None or isinstance(cell, float) else str(cell)
