"""Tables of what answers are worth: calibration, predictive values, net benefit, abstention."""

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
            "Expected calibration error (ECE) over bins of equal counts, beside that of a perfect"
            " model on as many cases: on average, and what 19 of 20 samples are below",
            (first, "bins", "ECE", "perfect: mean", "perfect: below"),
            [
                [name, len(ece.bins), ece.error, ece.perfect_mean, ece.perfect_limit]
                for name, _, ece, _ in judged
            ],
        ),
        build_table(
            "Too high by: mean probability minus share of positive cases. Slope (below 1: too bold)"
            " and intercept (right: 0): of a logistic regression on the logit",
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
        "Operating points are chosen on validation cases, for each kind of case, and judged here:"
        " Youden has the highest sum of sensitivity and specificity; the others err least of all"
        " that reach what is aimed at. A photo's answer is judged on every case with a photo, as if"
        " it had come without its text; a text's likewise.",
        build_table(
            "Operating points",
            ("case", "aim", "threshold", "sensitivity", "specificity"),
            [[*first, one.threshold, one.sensitivity, one.specificity] for first, one in points],
        ),
        build_table(
            f"Cases that are {name} and others, by what they are called at the operating points",
            ("case", "aim", f"{name}: found", "missed", f"others: called {name}", "left alone"),
            [[*first, *one.confusion[0], *one.confusion[1]] for first, one in points],
        ),
        build_table(
            f"Predictive values, first at the prevalence of these cases: the share of {name} among"
            " those called so (PPV), of the rest among the rest (NPV)",
            ("case", "aim", "prevalence", "PPV", "NPV"),
            [
                [*first, worth.prevalence, worth.ppv, worth.npv]
                for first, one in points
                for worth in one.predictive_values
            ],
        ),
    ]


def tabulate_net_benefit(metrics: Metrics) -> Table:
    """Lists the net benefit of acting on the answer from all that a case has."""
    return build_table(
        "Net benefit of treating from a probability on, fusion: the share rightly treated less that"
        " wrongly treated, which counts threshold / (1 - threshold) each; treating none has 0."
        " Gain: over the better of treating all and none",
        ("threshold", "net benefit", "treat all", "gain", "p"),
        [
            [f"{one.threshold:.2f}", one.model, one.treat_all, one.gain, format_p(one.gain.p)]
            for one in metrics.heads["fusion"].net_benefit or ()
        ],
    )


def tabulate_abstention(abstention: Abstention) -> list[Block]:
    """Lists decisions by kind of case, and accuracy against the share of cases answered."""
    return [
        build_table(
            "Where the model says that it cannot tell: for inputs unlike its training data or not"
            " read (unknown), and where it is not sure, or has a text alone that says nothing clear"
            " (undecided). Covered: the share whose label is in the prediction set, 0.90 by design"
            " in each kind of case",
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
