"""The results in a few plain sentences, which a report begins with."""

from eczema_tf.evaluation.intervals import Estimate
from eczema_tf.evaluation.records import Metrics


def say_plainly(metrics: Metrics) -> list[str]:
    """Says how often the model is right, when it does not answer, and what photo and text add."""
    fusion, gain, said = metrics.heads["fusion"], metrics.fusion_gain, []
    if fusion.sensitivity.value is not None and fusion.specificity.value is not None:
        wrong = Estimate(
            value=1 - fusion.specificity.value,
            low=None if fusion.specificity.high is None else 1 - fusion.specificity.high,
            high=None if fusion.specificity.low is None else 1 - fusion.specificity.low,
        )
        said.append(
            f"Of 100 such cases that are {metrics.positive_class}, about"
            f" {_of_hundred(fusion.sensitivity)} are called so; of 100 others, about"
            f" {_of_hundred(wrong)} are called so wrongly."
        )
    if metrics.abstention and (decided := metrics.abstention.groups["all"]).cases:
        silent = decided.unknown + decided.undecided
        said.append(
            f"It says that it cannot tell in {silent} of {decided.cases} cases; of 100 answers that"
            f" it does give, about {_of_hundred(decided.accuracy)} are right."
        )
    if gain.low is not None and gain.high is not None:
        verdict = "as far as these cases show, no better and no worse than"
        if gain.low > 0 or gain.high < 0:
            verdict = "better than" if gain.low > 0 else "worse than"
        said.append(f"Photo and text together are {verdict} the better one of them alone.")
    if metrics.external:
        said.append("These cases come from other data than the model was trained on.")
    return said


def _of_hundred(share: Estimate) -> str:
    if share.value is None:
        return "an unknown number"
    if share.low is None or share.high is None:
        return f"{100 * share.value:.0f}"
    return f"{100 * share.value:.0f} ({100 * share.low:.0f} to {100 * share.high:.0f})"
