"""Reporting guidelines filled in from a run: what the run answers, and what its author has to.

The items are in `checklists.yaml`. An item is met only if every figure it names is known.
"""

from collections import Counter
from pathlib import Path

from pydantic import TypeAdapter

from eczema_tf.config import Section as StrictSection
from eczema_tf.config import read_yaml
from eczema_tf.evaluation.records import External, Metrics
from eczema_tf.evaluation.subgroups import FACTORS
from eczema_tf.reporting.document import Block, Table
from eczema_tf.reporting.facts import RunFacts, find_looked_at, list_caveats, tabulate_settings
from eczema_tf.reporting.formats import HEAD_NAMES, format_estimate, format_number

MET, NOT_APPLICABLE, AUTHOR = "met by this run", "not applicable", "for the author to fill"
_BALANCED = "balanced by weights in training; then the biases were moved back to the prevalence"
_PREDICTORS = {"image": "a photo of the skin", "text": "a description in words"}
_MEASURES = (
    "AUROC, sensitivity, specificity, F1, predictive values, ECE, calibration slope, Brier score,"
    " net benefit; ROC, precision-recall, reliability and decision curves"
)


class Item(StrictSection):
    """One item of a guideline; see `checklists.yaml`."""

    item: int | str
    asks: str
    met: str = ""
    not_applicable: str = ""
    gives: str = ""

    def fill(self, figures: dict[str, str]) -> tuple[str, str]:
        """Returns whether the run meets the item, and what it says about it."""
        templates = {MET: self.met, NOT_APPLICABLE: self.not_applicable, AUTHOR: self.gives}
        for state, template in templates.items():
            try:
                if said := template.format_map(figures):
                    return state, said
            except KeyError:  # a figure is not known
                continue
        return AUTHOR, "-"


def load_checklists() -> dict[str, list[Item]]:
    """Reads the guidelines, by name."""
    items = read_yaml(Path(__file__).with_name("checklists.yaml"))
    return TypeAdapter(dict[str, list[Item]]).validate_python(items)


def tabulate_checklists(metrics: Metrics, facts: RunFacts) -> list[Block]:
    """Fills in both guidelines, each with a count of how many items the run meets."""
    figures, blocks = list_figures(metrics, facts), list[Block]()
    for name, items in load_checklists().items():
        rows = [[f"{item.item}", item.asks, *item.fill(figures)] for item in items]
        states = Counter(state for *_, state, _ in rows)
        counted = ", ".join(f"{states[state]} {state}" for state in (MET, NOT_APPLICABLE, AUTHOR))
        columns = ("item", "asks for", "state", "what the run says")
        blocks.append(Table(f"{name}: {len(rows)} items, {counted}", columns, rows))
    return blocks


def list_figures(metrics: Metrics, facts: RunFacts) -> dict[str, str]:
    """Lists what is known about a run and its results, in words, by name."""
    settings = tabulate_settings(facts).rows
    return {
        **{name.replace(" ", "_").replace("-", "_"): value for name, value in settings},
        **_describe_data(facts),
        **_describe_parts(metrics, facts),
        **_describe_results(metrics),
        "caveats": str(len(list_caveats(facts, metrics))),
    }


def _describe_data(facts: RunFacts) -> dict[str, str]:
    """Describes the data that the results are about, which may not be the run's own."""
    data, config = facts.judged or facts.data, facts.config
    counts = data.counts
    read = "one reader for all photos" if counts.image_only + counts.both else "no photos"
    if config.data.embeddings:
        read = "embeddings in place of photos"
    looked_at = [_PREDICTORS[name] for name in find_looked_at(facts)]
    joined = "; duplicates joined into groups" if config.data.merge_duplicates else ""
    left = "; ".join(f"{count}: {reason}" for reason, count in data.not_kept.items())
    said = {
        **data.provenance,
        "sources": data.name_sources(),
        "predictors": ", ".join(looked_at) + ", or both" * (len(looked_at) > 1),
        "predicted": "train, on folds left out of training"
        if config.split.folds
        else "evaluate, from the run folder",
        "missing": f"rows with only a photo: {counts.image_only}, with only a text:"
        f" {counts.text_only}",
        "preparation": f"{read}; {data.rejected_rows} bad rows left out{joined}",
        "initial": "all from the run that it builds on"
        if config.train.base_run
        else f"the rest drawn with seed {config.seed}",
        "imbalance": _BALANCED if config.train.balance_classes else "nothing was done about it",
        "built_in": facts.nobody_is_judged
        and "built-in data: made by a program, without any real person",
        "flow": left and f"{counts.cases} cases kept; left out: {left}",
    }
    return {name: words for name, words in said.items() if words}


def _describe_parts(metrics: Metrics, facts: RunFacts) -> dict[str, str]:
    """Describes how training and evaluated cases are kept apart; nothing if some may not be."""
    leaks = metrics.leaks
    if (leaks is None and facts.judged) or (leaks is not None and leaks.leaks):
        return {}
    by_split = [f"{one.cases} {split}" for split, one in (facts.data.split_counts or {}).items()]
    splits = f"cases: {', '.join(by_split)}"
    split = facts.config.split
    if folds := split.folds:
        again = f", divided {split.repeats} times" if split.repeats > 1 else ""
        splits = f"{facts.data.counts.cases} cases in {folds} folds{again}"
    if facts.judged is not None:
        splits = f"{facts.judged.counts.cases} cases that the run has not seen"
    disjoint = "group (patient, author, or case where no more is known)"
    return {"splits": splits, "disjoint": disjoint} if by_split or folds else {}


def _describe_results(metrics: Metrics) -> dict[str, str]:
    fusion, bootstrap = metrics.heads["fusion"], metrics.bootstrap
    heads = {HEAD_NAMES[name]: head for name, head in metrics.heads.items() if head.cases}
    aurocs = [f"{name} {format_estimate(head.auroc)}" for name, head in heads.items()]
    said = {
        "cases": f"{fusion.cases} labelled cases, {fusion.positives} of them"
        f" {metrics.positive_class}",
        "thresholds": ", ".join(f"{name} {head.threshold:.3f}" for name, head in heads.items()),
        **_describe_factors(metrics),
        **(
            _describe_external(metrics.external)
            if metrics.external
            else {"internal": f"judged on cases of the same source ({metrics.split})"}
        ),
    }
    if metrics.stress_tests:
        said["robustness"] = f"stress tests: {', '.join(metrics.stress_tests)}".replace("_", " ")
    if metrics.abstention:
        unanswered = 1 - (metrics.abstention.groups["all"].answered.value or 0)
        said["cannot_tell"] = (
            "cases that are unlike training, not read or undecided get the answer 'cannot tell'"
            f" ({unanswered:.0%} of these cases)"
        )
    if fusion.auroc.value is not None:
        said["measures"], said["aurocs"] = _MEASURES, "; ".join(aurocs)
        said["decisions"] = (
            f"sensitivity {format_estimate(fusion.sensitivity)}, specificity"
            f" {format_estimate(fusion.specificity)}"
        )
    if fusion.auroc.low is not None:
        level, groups = bootstrap.level, bootstrap.groups
        said["intervals"] = f"{level:.0%} intervals over {groups} groups; paired p-values"
    return said


def _describe_factors(metrics: Metrics) -> dict[str, str]:
    factors = metrics.subgroups.factors if metrics.subgroups else {}
    found = sum(gap.found for factor in factors.values() for gap in factor.gaps.values())
    compared = ", ".join(FACTORS[name] for name, factor in factors.items() if factor.gaps)
    said = {"subgroups": f"compared by {compared}; gaps shown: {found}"} if compared else {}
    if "source" in factors and factors["source"].gaps:
        said["by_source"] = f"{len(factors['source'].subgroups)} sources, in the subgroups above"
    return said


def _describe_external(external: External) -> dict[str, str]:
    said = {"external": "judged on other data than the run's own"}
    offset, shift = external.recalibration["fusion"], external.shift.items()
    if shift:
        most = ", ".join(f"{name} {format_number(one.difference)}" for name, one in shift)
        said["shift"] = f"difference from training, in standard deviations or shares: {most}"
    if offset.value is not None:
        said["recalibration"] = (
            f"in the large, offered and not used: {format_estimate(offset)} to the log-odds"
        )
    return said
