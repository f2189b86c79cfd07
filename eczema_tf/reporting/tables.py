"""The results in `metrics.json` as sections of a document.

The terminal, the report page and the model card show these same tables and sentences, each in its
own format (`document.py`).
"""

from collections.abc import Sequence
from dataclasses import replace

from eczema_tf.evaluation.intervals import Difference, Estimate
from eczema_tf.evaluation.records import Confusion, Metrics
from eczema_tf.evaluation.results import GUESSED_AMBIGUOUS, KNOWN_AMBIGUOUS
from eczema_tf.evaluation.subgroups import FACTORS, METRICS, Subgroups
from eczema_tf.reporting.document import Block, Bullets, Section, Table, Warned

HEAD_NAMES = {"image": "photo", "text": "text", "fusion": "both (fusion)"}
SUBSET_NAMES = {
    "image_ambiguous": "photo ambiguous",
    "text_ambiguous": "text ambiguous",
    "image_missing": "photo missing",
    "text_missing": "text missing",
    "both_present": "both present",
}
METRIC_NAMES = {
    "auroc": "AUROC",
    "f1": "F1",
    "macro_f1": "macro F1",
    "mae": "mean error",
    "in_the_large": "too high by",
}
SUBGROUPS = "Is it as good for everybody?"
_MARKS = {"known posterior": "*", "model probability": "**"}


def build_results(metrics: Metrics) -> list[Section]:
    """Builds what every format shows of the results."""
    heads: list[Block] = [
        *warn_of_leaks(metrics),
        describe_sample(metrics),
        *describe_texts(metrics),
        tabulate_aurocs(metrics),
        tabulate_decisions(metrics),
        describe_gain(metrics),
        *list_undefined(metrics),
    ]
    if metrics.bayes_auroc:
        heads.append(
            "Limit: the AUROC (of severity, the best kappa) of the exact posterior on the same"
            " cases, which no model can pass but by chance; gap: what is missing, paired."
        )
    sections = [
        Section("P(eczema)", heads),
        Section("Are the probabilities right?", tabulate_calibration(metrics)),
        Section(
            "What the answers are worth",
            [tabulate_predictive_values(metrics), tabulate_net_benefit(metrics)],
        ),
        Section("Where fusion has most, or nothing, to do", [tabulate_subsets(metrics)]),
    ]
    if wordings := tabulate_wordings(metrics):
        sections.append(Section("Known words and new ones", wordings))
    if metrics.subgroups:
        sections.append(Section(SUBGROUPS, build_subgroups(metrics.subgroups)))
    sentences, tables = describe_labels(metrics), tabulate_labels(metrics)
    if sentences:
        sections.append(Section("Consistency and severity", [Bullets(sentences), *tables]))
    return [replace(section, blocks=mark_leaks(metrics, section.blocks)) for section in sections]


def format_estimate(estimate: Estimate, digits: int = 3) -> str:
    """Formats a value and its interval, `0.872 [0.821, 0.918]`; "-" if it is undefined."""
    if estimate.value is None:
        return "-"
    value = f"{estimate.value:.{digits}f}"
    if estimate.low is None or estimate.high is None:
        return f"{value} [no interval]"
    return f"{value} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def format_difference(difference: Difference) -> str:
    """Formats a difference with interval and p-value, `+0.051 [0.021, 0.080] (p 0.001)`."""
    sign = "+" if difference.value is not None and difference.value >= 0 else ""
    p = "" if difference.p is None else f" (p {format_p(difference.p)})"
    return f"{sign}{format_estimate(difference)}{p}"


def format_p(p: float | None) -> str:
    """Formats a p-value; "-" without one."""
    return "-" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def format_number(value: float | None) -> str:
    """Formats a value without an interval; "-" if it is undefined."""
    return "-" if value is None else f"{round(value, 3) + 0.0:.3f}"  # + 0.0 turns -0.000 into 0.000


def warn_of_leaks(metrics: Metrics) -> list[Block]:
    """Warns if the model has seen some of the cases, and that was allowed."""
    leaks = metrics.leaks
    if leaks is None or not leaks.leaks:
        return []
    return [
        Warned(
            f"{leaks.leaks} leaks between training and these cases were allowed: these results"
            f" are too good. For instance: {'; '.join(leaks.examples[:3])}."
        )
    ]


def mark_leaks(metrics: Metrics, blocks: Sequence[Block]) -> list[Block]:
    """Marks every table, which may be copied out of its report, if there were leaks."""
    if not warn_of_leaks(metrics):
        return [*blocks]
    return [
        replace(block, caption=f"{block.caption} (too good: leaks)")
        if isinstance(block, Table)
        else block
        for block in blocks
    ]


def describe_sample(metrics: Metrics) -> str:
    """Says which cases the metrics are of, and how their intervals were made."""
    bootstrap, positives = metrics.bootstrap, metrics.heads["fusion"].positives
    widened = ""
    if bootstrap.widened:
        widened = (
            f", and they are {bootstrap.widened:.2f} times as wide for the variance of training"
        )
    return (
        f"{metrics.split.capitalize()}: {metrics.cases} cases, {metrics.labelled} with an eczema"
        f" label, {positives} of them eczema (a label above {metrics.label_threshold:g})."
        f" In brackets: {bootstrap.level:.0%} intervals; the cases of each of the"
        f" {bootstrap.groups} groups count as drawn together{widened}."
    )


def describe_texts(metrics: Metrics) -> list[Block]:
    """Says how many texts are not read to their end, or are mostly unknown words."""
    found = metrics.texts
    if found is None or not found.texts:
        return []
    cut, unknown = (f"{count} ({count / found.texts:.1%})" for count in (found.cut, found.unknown))
    return [
        f"Texts: {found.texts}; longer than what the model reads (model.text.max_tokens): {cut};"
        f" mostly words that it does not know: {unknown}."
    ]


def tabulate_aurocs(metrics: Metrics) -> Table:
    """Lists the AUROC of each head; on built-in data also the limit and the gap to it."""
    limits, gaps, rows = metrics.bayes_auroc, metrics.bayes_gap or {}, []
    for modality, head in metrics.heads.items():
        row = [HEAD_NAMES[modality], str(head.cases), str(head.positives)]
        row.append(format_estimate(head.auroc))
        if limits:
            row += [format_number(limits.get(modality))]
            row += [format_estimate(gaps[modality]) if modality in gaps else "-"]
        rows.append(row)
    columns = ("P(eczema) from", "cases", "eczema", "AUROC", *(("limit", "gap") if limits else ()))
    return Table("Without a threshold", columns, rows)


def tabulate_decisions(metrics: Metrics) -> Table:
    """Lists what each head's threshold makes of its probabilities."""
    rows = [
        [
            HEAD_NAMES[modality],
            f"{head.threshold:.3f}",
            format_estimate(head.sensitivity),
            format_estimate(head.specificity),
            format_estimate(head.f1),
        ]
        for modality, head in metrics.heads.items()
    ]
    columns = ("P(eczema) from", "threshold", "sensitivity", "specificity", "F1")
    return Table("At the thresholds chosen on validation", columns, rows)


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
    first = "P(eczema) from"
    return [
        Table(
            "Expected calibration error (ECE) over bins of equal counts, beside that of a perfect"
            " model on as many cases: on average, and what 19 of 20 samples are below",
            (first, "bins", "ECE", "perfect: mean", "perfect: below"),
            errors,
        ),
        Table(
            "Too high by: mean probability minus share of eczema. Slope (below 1: too bold) and"
            " intercept (right: 0): of a logistic regression on the logit",
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
        "Predictive values at the thresholds, first at the prevalence of these cases: the share of"
        " eczema among those called so (PPV), of the rest among the rest (NPV)"
    )
    return Table(title, ("P(eczema) from", "prevalence", "PPV", "NPV"), rows)


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


def describe_gain(metrics: Metrics) -> str:
    """Says what fusion gains over the better single head."""
    gain = metrics.fusion_gain
    over = f"{HEAD_NAMES[gain.over]} alone" if gain.over else "the better single head"
    return (
        f"AUROC of fusion minus {over}, paired, {gain.cases} cases with photo and text:"
        f" {format_difference(gain)}."
    )


def tabulate_subsets(metrics: Metrics) -> Table:
    """Lists the AUROC of each head where fusion has most, or nothing, to do."""
    rows = [
        [
            SUBSET_NAMES[name] + _MARKS.get(subset.defined_by, ""),
            str(subset.cases),
            *(format_estimate(subset.heads[modality].auroc) for modality in HEAD_NAMES),
        ]
        for name, subset in metrics.subsets.items()
    ]
    notes = {
        "known posterior": "by the known posterior, {} to {}".format(*KNOWN_AMBIGUOUS),
        "model probability": "by the model's own probability, {} to {}".format(*GUESSED_AMBIGUOUS),
    }
    used = {subset.defined_by for subset in metrics.subsets.values()}
    explained = [f"{_MARKS[basis]} {note}" for basis, note in notes.items() if basis in used]
    columns = ("cases where", "cases", *HEAD_NAMES.values())
    caption = "; ".join(["AUROC where", *explained])
    return Table(caption, columns, rows)


def tabulate_wordings(metrics: Metrics) -> list[Table]:
    """Lists the AUROC of each head on texts in known and in new words, and their limits, if any."""
    rows = [
        [
            HEAD_NAMES[modality],
            name,
            str(subset.heads[modality].cases),
            format_estimate(subset.heads[modality].auroc),
            format_number((subset.bayes_auroc or {}).get(modality)),
        ]
        for modality in HEAD_NAMES
        for name, subset in (metrics.wordings or {}).items()
    ]
    title = "Texts in wordings that occur in training (known), and in wordings that do not (new)"
    columns = ("P(eczema) from", "wordings", "cases", "AUROC", "limit")
    return [Table(title, columns, rows)] if rows else []


def build_subgroups(subgroups: Subgroups) -> list[Block]:
    """Builds what is said of the subgroups: a table for each factor, and the gaps between them."""
    blocks: list[Block] = [
        "The answer from all that a case has. Too high by: the mean probability minus the share of"
        f" eczema. Too few: under {subgroups.minimum} groups with a case of each class."
    ]
    for name, factor in subgroups.factors.items():
        rows = []
        for value, found in factor.subgroups.items():
            estimates = [format_estimate(getattr(found, metric), 2) for metric in METRICS]
            if found.auroc.value is None:
                estimates[0] = "too few"
            rows.append([value, f"{found.positives} of {found.cases}", *estimates])
        columns = ("cases", "eczema", *(METRIC_NAMES.get(metric, metric) for metric in METRICS))
        blocks.append(Table(f"By {FACTORS[name]}", columns, rows))
    gaps = [
        [
            FACTORS[name],
            METRIC_NAMES.get(metric, metric),
            f"{gap.high} over {gap.low}",
            format_estimate(gap.difference),
            format_p(gap.difference.p),
            "yes" if gap.found else "not shown",
        ]
        for name, factor in subgroups.factors.items()
        for metric, gap in factor.gaps.items()
    ]
    if gaps:
        title = (
            "The clearest gap between two subgroups. Intervals and p-values allow for having looked"
            f" at all pairs and at {subgroups.comparisons} gaps. One that is not shown may exist:"
            " the interval says how large it may be."
        )
        columns = ("by", "of", "between", "difference", "p", "a gap?")
        blocks.append(Table(title, columns, gaps))
    return blocks


def describe_labels(metrics: Metrics) -> list[str]:
    """Says how good the consistency and severity heads are, where there are labels."""
    consistency, severity, sentences = metrics.consistency, metrics.severity, []
    if consistency.cases:
        sentences.append(
            f"Consistency: macro F1 {format_estimate(consistency.macro_f1)}, accuracy"
            f" {format_estimate(consistency.accuracy)}."
        )
    for source, grades in (("", severity), *severity.alone.items()):
        if grades.cases:
            name = f"Severity from the {HEAD_NAMES[source]} alone" if source else "Severity"
            limit = grades.best_kappa
            sentences.append(
                f"{name}, of {grades.cases} cases of eczema: quadratic kappa"
                f" {format_estimate(grades.kappa)}"
                f"{'' if limit is None else f' (limit {format_number(limit)})'}, mean error"
                f" {format_estimate(grades.mae)} grades."
            )
    return sentences


def tabulate_labels(metrics: Metrics) -> list[Table]:
    """Counts what was predicted for each true label of consistency and severity, if any."""
    tables = []
    for name in ("consistency", "severity"):
        confusion: Confusion = getattr(metrics, name).confusion
        cases = sum(map(sum, confusion.counts))
        if cases:
            rows = [
                [label, *map(str, counts)]
                for label, counts in zip(confusion.labels, confusion.counts, strict=True)
            ]
            columns = ("true", *(f"predicted {label}" for label in confusion.labels))
            caption = f"{name.capitalize()}: {cases} cases"
            tables.append(Table(caption, columns, rows))
    return tables


def list_undefined(metrics: Metrics) -> list[Block]:
    """Says why metrics of the main tables are undefined; of the subsets, `metrics.json` says it."""
    parts: dict[str, dict[str, Estimate]] = {
        HEAD_NAMES[modality]: _list_estimates(head) for modality, head in metrics.heads.items()
    }
    parts["fusion gain"] = {"AUROC": metrics.fusion_gain}
    parts["consistency"] = _list_estimates(metrics.consistency)
    parts["severity"] = _list_estimates(metrics.severity)
    names: dict[tuple[str, str], list[str]] = {}
    for part, estimates in parts.items():
        for name, estimate in estimates.items():
            if estimate.reason is not None:
                names.setdefault((part, estimate.reason), []).append(METRIC_NAMES.get(name, name))
    lines = [f"{part}, {', '.join(which)}: {reason}." for (part, reason), which in names.items()]
    return [Bullets(lines)] if lines else []


def _list_estimates(found: object) -> dict[str, Estimate]:
    return {name: value for name, value in vars(found).items() if isinstance(value, Estimate)}
