"""Tables of what probabilities are worth: calibration, predictive values, net benefit."""

from eczema_tf.evaluation.records import Metrics
from eczema_tf.reporting.document import Block, Table
from eczema_tf.reporting.formats import (
    HEAD_NAMES,
    KIND_NAMES,
    format_estimate,
    format_number,
    format_p,
)


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


def tabulate_points(metrics: Metrics) -> list[Block]:
    """Lists operating points, what they make of the cases, and their predictive values."""
    name = metrics.positive_class
    points, worth, confusion = [], [], []
    for point in metrics.operating_points or []:
        first = [KIND_NAMES[point.kind], point.aim]
        estimates = map(format_estimate, (point.sensitivity, point.specificity))
        points.append([*first, f"{point.threshold:.3f}", *estimates])
        confusion.append([*first, *(str(count) for row in point.confusion for count in row)])
        worth += [
            [*first, f"{one.prevalence:.3f}", format_estimate(one.ppv), format_estimate(one.npv)]
            for one in point.predictive_values
        ]
    return [
        "Operating points are chosen on validation cases, for each kind of case, and judged here:"
        " Youden has the highest sum of sensitivity and specificity; the others err least of all"
        " that reach what is aimed at. A photo's answer is judged on every case with a photo, as if"
        " it had come without its text; a text's likewise.",
        Table(
            "Operating points", ("case", "aim", "threshold", "sensitivity", "specificity"), points
        ),
        Table(
            f"Cases that are {name} and others, by what they are called at the operating points",
            ("case", "aim", f"{name}: found", "missed", f"others: called {name}", "left alone"),
            confusion,
        ),
        Table(
            f"Predictive values, first at the prevalence of these cases: the share of {name} among"
            " those called so (PPV), of the rest among the rest (NPV)",
            ("case", "aim", "prevalence", "PPV", "NPV"),
            worth,
        ),
    ]


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
