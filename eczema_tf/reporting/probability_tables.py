"""Tables of what probabilities are worth: calibration, predictive values, net benefit."""

from eczema_tf.evaluation.records import Metrics
from eczema_tf.reporting.document import Block, Table
from eczema_tf.reporting.formats import HEAD_NAMES, format_estimate, format_number, format_p


def tabulate_calibration(metrics: Metrics) -> list[Block]:
    """Lists how well the probabilities of each head are calibrated, in three tables."""
    errors, slopes, scores = [], [], []
    for modality, head in metrics.heads.items():
        if (found := head.calibration) is None or not head.cases:
            continue
        ece, brier, name = found.ece, found.brier, HEAD_NAMES[modality]
        perfect = [format_number(ece.perfect_mean), format_number(ece.perfect_limit)]
        errors.append([name, str(len(ece.bins)), format_estimate(ece.error), *perfect])
        lines = (found.in_the_large, found.slope, found.intercept)
        slopes.append([name, *map(format_estimate, lines)])
        parts = (brier.miscalibration, brier.discrimination, brier.uncertainty)
        scores.append([name, format_estimate(brier.score), *map(format_number, parts)])
    if not errors:
        return []
    first = f"P({metrics.positive_class}) from"
    return [
        Table(
            "Expected calibration error (ECE) over bins of equal counts, beside that of a perfect"
            " model on as many cases: on average, and what 19 of 20 samples are below",
            (first, "bins", "ECE", "perfect: mean", "perfect: below"),
            errors,
        ),
        Table(
            "Too high by: mean probability minus share of positive cases. Slope (below 1: too bold)"
            " and intercept (right: 0): of a logistic regression on the logit",
            (first, "too high by", "slope", "intercept"),
            slopes,
        ),
        Table(
            "Brier score = miscalibration - discrimination + uncertainty",
            (first, "Brier", "miscalibration", "discrimination", "uncertainty"),
            scores,
        ),
    ]


def tabulate_predictive_values(metrics: Metrics) -> Table:
    """Lists predictive values at the threshold, at the prevalence of the cases and at others."""
    rows = [
        [
            HEAD_NAMES[modality],
            f"{found.prevalence:.3f}",
            format_estimate(found.ppv),
            format_estimate(found.npv),
        ]
        for modality, head in metrics.heads.items()
        for found in head.predictive_values or []
    ]
    title = (
        "Predictive values at the thresholds, first at the prevalence of these cases: the share"
        f" that is {metrics.positive_class} among those called so (PPV), and that is not among the"
        " rest (NPV)"
    )
    return Table(title, (f"P({metrics.positive_class}) from", "prevalence", "PPV", "NPV"), rows)


def tabulate_net_benefit(metrics: Metrics) -> Table:
    """Lists the net benefit of acting on the answer from all that a case has."""
    rows = [
        [
            f"{found.threshold:.2f}",
            format_estimate(found.model),
            format_number(found.treat_all),
            f"{format_estimate(found.gain)}",
            format_p(found.gain.p),
        ]
        for found in metrics.heads["fusion"].net_benefit or []
    ]
    title = (
        "Net benefit of treating from a probability on, fusion: the share rightly treated less that"
        " wrongly treated, which counts threshold / (1 - threshold) each; treating none has 0."
        " Gain: over the better of treating all and none"
    )
    return Table(title, ("threshold", "net benefit", "treat all", "gain", "p"), rows)
