"""Two runs on the same cases: what one does better, paired, so that hard cases count for both."""

from eczema_tf.evaluation.intervals import Difference, estimate_difference
from eczema_tf.evaluation.metrics import Statistic, measure_f1, measure_mean
from eczema_tf.evaluation.predictions import PROBABILITY_COLUMNS, is_scored
from eczema_tf.evaluation.sample import Sample
from eczema_tf.files import Record


class PairedMetric(Record):
    """A metric of both runs, and that of the second minus that of the first."""

    first: float | None
    second: float | None
    difference: Difference


class PairedHead(Record):
    """One head of both runs, on the cases that both have answered."""

    cases: int
    positives: int
    metrics: dict[str, PairedMetric]


def pair_runs(first: Sample, second: Sample) -> dict[str, PairedHead]:
    """Compares two runs, each at its own thresholds.

    AUROC by DeLong's test for groups, the others by Student's interval of the mean difference
    between groups. The p-values do not allow for looking at several metrics.

    Args:
        first: The cases of one run.
        second: The same cases, in the same order, of the other; their groups are those of `first`.

    Returns:
        By head, those that both runs have.
    """
    paired = {}
    for modality in PROBABILITY_COLUMNS:
        scored = is_scored(first.cases, modality) & is_scored(second.cases, modality)
        if scored.any():
            paired[modality] = _pair_head(first.where(scored), second.where(scored), modality)
    return paired


def _pair_head(first: Sample, second: Sample, modality: str) -> PairedHead:
    positive, sampling = first.positive(), first.sampling
    of_second, metrics = _measure(second, modality), {}
    reason = first.explain_undefined("an answer of both runs")
    counted = {"sensitivity": positive, "specificity": ~positive}  # all, of the others
    for name, one in _measure(first, modality).items():
        other, groups = of_second[name], sampling.count(counted.get(name))
        difference = (
            first.estimate_auroc_difference(other, one, reason)
            if name == "auroc"
            else estimate_difference(other - one, sampling, reason, groups=groups)
        )
        defined = difference.value is not None
        metrics[name] = PairedMetric(
            first=one.value if defined else None,
            second=other.value if defined else None,
            difference=difference,
        )
    positives = first.where(positive).count()
    return PairedHead(cases=first.count(), positives=positives, metrics=metrics)


def _measure(sample: Sample, modality: str) -> dict[str, Statistic]:
    positive, called = sample.positive(), sample.called(modality)
    labels, probability = sample.cases["eczema"].to_numpy("float64"), sample.probability(modality)
    return {
        "auroc": sample.measure_auroc(PROBABILITY_COLUMNS[modality]),
        "sensitivity": measure_mean(called, positive),
        "specificity": measure_mean(~called, ~positive),
        "f1": measure_f1(positive, called),
        "brier": measure_mean((probability - labels) ** 2),
    }
