"""Tables on what answers are worth: calibration, predictive values, net benefit, abstention."""

from eczema_tf.evaluation.abstention import Abstention
from eczema_tf.evaluation.records import Metrics
from eczema_tf.reporting.document import Block, Table
from eczema_tf.reporting.formats import HEAD_NAMES, KIND_NAMES, build_table, format_p

_GROUP_NAMES = {"all": "all cases", "image": "photo alone", "text": "text alone", "fusion": "both"}


def tabulate_calibration(metrics: Metrics) -> list[Block]:
    """Lists how well the probabilities of each head are calibrated, in three tables."""
    judged = [
        (HEAD_NAMES[modality], head.calibration, head.calibration.ece, head.calibration.brier)
        for modality, head in metrics.heads.items()
        if head.calibration and head.cases
    ]
    if not judged:
        return []
    first = f"P({metrics.positive_class}) from"
    return [
        build_table(
            "Expected calibration error (ECE) over bins of equal counts, next to that of a perfect"
            " model on as many cases: its mean, and the value that 19 of 20 samples stay below",
            (first, "bins", "ECE", "perfect: mean", "perfect: below"),
            [
                [name, len(ece.bins), ece.error, ece.perfect_mean, ece.perfect_limit]
                for name, _, ece, _ in judged
            ],
        ),
        build_table(
            "Too high by: mean probability minus mean label. Slope (below 1:"
            " overconfident) and intercept (ideal: 0): of a logistic regression on the logit",
            (first, "too high by", "slope", "intercept"),
            [[name, one.in_the_large, one.slope, one.intercept] for name, one, _, _ in judged],
        ),
        build_table(
            "Brier score = miscalibration - discrimination + uncertainty",
            (first, "Brier", "miscalibration", "discrimination", "uncertainty"),
            [[name, *vars(brier).values()] for name, _, _, brier in judged],
        ),
    ]


def tabulate_points(metrics: Metrics) -> list[Block]:
    """Lists operating points, their confusion matrices and their predictive values."""
    name = metrics.positive_class
    points = [([KIND_NAMES[one.kind], one.aim], one) for one in metrics.operating_points or ()]
    return [
        "Operating points are chosen on validation cases, for each kind of case, and evaluated"
        " here. Youden has the highest sum of sensitivity and specificity. Each of the others"
        " reaches the sensitivity or specificity aimed at with the fewest errors of the other kind."
        " A photo's answer is evaluated on every case with a photo, as if the case had come without"
        " its text; a text's answer in the same way.",
        build_table(
            "Operating points",
            ("case", "aim", "threshold", "sensitivity", "specificity"),
            [[*first, one.threshold, one.sensitivity, one.specificity] for first, one in points],
        ),
        build_table(
            f"Cases that are {name}, and others, by how the operating points classify them",
            ("case", "aim", f"{name}: found", "missed", f"others: called {name}", "left alone"),
            [[*first, *one.confusion[0], *one.confusion[1]] for first, one in points],
        ),
        build_table(
            f"Predictive values, first at the prevalence of these cases. PPV: share of {name} among"
            " the cases called so; NPV: share of other cases among the rest",
            ("case", "aim", "prevalence", "PPV", "NPV"),
            [
                [*first, worth.prevalence, worth.ppv, worth.npv]
                for first, one in points
                for worth in one.predictive_values
            ],
        ),
    ]


def tabulate_net_benefit(metrics: Metrics) -> Table:
    """Lists the net benefit of acting on the answer that uses everything a case has."""
    return build_table(
        "Net benefit of treating at or above a threshold (fusion): the share of cases rightly"
        " treated minus the share wrongly treated, each of which counts threshold / (1 -"
        " threshold). Treating none has 0. Gain: over the better of treating all and treating none",
        ("threshold", "net benefit", "treat all", "gain", "p"),
        [
            [f"{one.threshold:.2f}", one.model, one.treat_all, one.gain, format_p(one.gain.p)]
            for one in metrics.heads["fusion"].net_benefit or ()
        ],
    )


def tabulate_abstention(abstention: Abstention) -> list[Block]:
    """Lists decisions by kind of case, and accuracy by the share of cases answered."""
    return [
        build_table(
            "Where the model says that it cannot tell. Unknown: inputs are unlike its training data"
            " or not read. Undecided: the model is not sure, or has only a text that says nothing"
            " clear. Covered: share of cases whose label is in the prediction set, 0.90 by design"
            " for each kind of case",
            ("cases of", "cases", "unknown", "undecided", "answered", "accuracy", "covered"),
            [
                [_GROUP_NAMES.get(name, name), *vars(group).values()]
                for name, group in abstention.groups.items()
            ],
            digits=2,
        ),
        build_table(
            "Accuracy at the thresholds, if only the surest cases are answered",
            ("share answered", "accuracy"),
            [[f"{one.answered:.0%}", one.accuracy] for one in abstention.risk_coverage],
        ),
    ]
