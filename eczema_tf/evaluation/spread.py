"""How far the figures of a run move when it is repeated with other seeds."""

from collections.abc import Mapping, Sequence

import numpy as np

from eczema_tf.evaluation.records import Metrics
from eczema_tf.files import Record


class Spread(Record):
    """A figure of several runs.

    `sd` is the sample's standard deviation (divided by n - 1). A run in which the figure is
    undefined has null in `values` and is left out of the rest; under two, there is no rest.
    """

    values: list[float | None]
    mean: float | None = None
    sd: float | None = None
    lowest: float | None = None
    highest: float | None = None


def measure_spread(runs: Sequence[Metrics]) -> dict[str, Spread]:
    """Measures the spread of the main figures, by name, over runs that differ in their seed."""
    figures = [_take_figures(metrics) for metrics in runs]
    return {name: _spread([one.get(name) for one in figures]) for name in figures[0]}


def _take_figures(metrics: Metrics) -> Mapping[str, float | None]:
    fusion = metrics.heads["fusion"]
    estimates = {f"auroc_{modality}": head.auroc for modality, head in metrics.heads.items()}
    estimates |= {
        "fusion_gain": metrics.fusion_gain,
        "sensitivity": fusion.sensitivity,
        "specificity": fusion.specificity,
        "f1": fusion.f1,
        "consistency_macro_f1": metrics.consistency.macro_f1,
        "severity_kappa": metrics.severity.kappa,
    }
    if fusion.calibration:
        estimates["ece"] = fusion.calibration.ece.error
    if metrics.abstention:
        estimates["answered"] = metrics.abstention.groups["all"].answered
    return {name: estimate.value for name, estimate in estimates.items()}


def _spread(values: list[float | None]) -> Spread:
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return Spread(values=values)
    return Spread(
        values=values,
        mean=float(np.mean(known)),
        sd=float(np.std(known, ddof=1)),
        lowest=min(known),
        highest=max(known),
    )
