"""Compares evaluated runs on the same cases: what `evaluate --compare` runs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from eczema_tf.errors import DataError, RunError, raise_if_any
from eczema_tf.evaluation.paired_runs import PairedHead, pair_runs
from eczema_tf.evaluation.predictions import load_predictions
from eczema_tf.evaluation.records import Metrics
from eczema_tf.files import write_json, write_text
from eczema_tf.reporting.comparison_tables import build_comparison
from eczema_tf.reporting.document import format_markdown, format_page, format_text
from eczema_tf.reporting.tables import mark_leaks, warn_of_leaks
from eczema_tf.workflows import run_folder

PAGE_TITLE = "Eczema assistant: runs compared"


@dataclass(frozen=True)
class Evaluated:
    """The results in a folder, with one row per case (and repeat of a cross-validation)."""

    name: str
    metrics: Metrics
    cases: pd.DataFrame

    @classmethod
    def load(cls, name: str, folder: Path) -> "Evaluated":
        """Reads a folder's results; raises as `compare` does."""
        metrics = Metrics.read(folder / run_folder.METRICS)
        return cls(name, metrics, load_predictions(folder / run_folder.PREDICTIONS))


def compare(runs: Sequence[Path], out: Path | None = None) -> dict[str, dict[str, PairedHead]]:
    """Compares the first of several runs with each of the others, and prints the table.

    Args:
        runs: At least two folders with `predictions.csv` and `metrics.json`, of runs or of results
            of `evaluate`.
        out: Folder for the table as a page, as Markdown and as JSON; None to print it only.

    Returns:
        The comparisons, by name of the run and head.

    Raises:
        RunError: If a folder contains no results or is named twice, or `out` is a run's folder.
        DataError: If the runs have no case in common, or do not agree on what is eczema.
    """
    if out is not None:
        run_folder.refuse_run(out)
    if len({run.resolve() for run in runs}) < len(runs):
        raise RunError(f"--compare {' '.join(map(str, runs))}: names the same run twice")
    names = [run.resolve().name for run in runs]
    unique = names if len({*names}) == len(names) else list(map(str, runs))
    first, *others = map(Evaluated.load, unique, runs)
    keys = [key for key in ("case_id", "repeat") if key in first.cases]
    common = first.cases[keys]
    for other in others:
        _check_alike(first, other, keys)
        common = common.merge(other.cases[keys], on=keys)
    if common.empty:
        raise DataError(f"--compare {' '.join(map(str, runs))}: no case is in all of them")
    reference = first.metrics.take(common.merge(first.cases, on=keys))
    paired = {}
    for other in others:
        taken = other.metrics.take(common.merge(other.cases, on=keys))
        # both by what the first should predict: errors from one label
        taken = replace(taken, soft_labels=reference.soft_labels)
        paired[other.name] = pair_runs(reference, taken)
    counts = ", ".join(str(run.cases["case_id"].nunique()) for run in (first, *others))
    described = (
        f"{first.metrics.split.capitalize()}: the {common['case_id'].nunique()} cases that all runs"
        f" have in common; the runs have {counts}, in the order given."
    )
    section = build_comparison(first.name, paired, described, first.metrics.positive_class)
    if leaky := [run.metrics for run in (first, *others) if warn_of_leaks(run.metrics)]:
        warned = warn_of_leaks(leaky[0], named=False)
        section = replace(section, blocks=[*warned, *mark_leaks(leaky[0], section.blocks)])
    sections = [section]
    print(format_text(sections))
    if out is not None:
        write_text(out / "comparison.html", format_page(PAGE_TITLE, sections))
        write_text(out / "comparison.md", format_markdown(PAGE_TITLE, sections))
        write_json(out / "comparison.json", {"first": first.name, "others": paired})
    return paired


def _check_alike(first: Evaluated, other: Evaluated, keys: list[str]) -> None:
    """Refuses runs whose results on the same cases are not comparable."""
    title, one, two = f"--compare {first.name} {other.name}", first.metrics, other.metrics
    if ("repeat" in first.cases) != ("repeat" in other.cases):
        raise DataError(f"{title}: one is a cross-validation; compare two, or none")
    if one.positive_class != two.positive_class:
        raise DataError(
            f"{title}: one detects {one.positive_class} and the other {two.positive_class}"
        )
    if one.label_threshold != two.label_threshold:
        raise DataError(
            f"{title}: a label is positive above {one.label_threshold:g} in one run and above"
            f" {two.label_threshold:g} in the other; train both with the same"
            " data.label_threshold"
        )
    both = first.cases.merge(other.cases, on=keys, suffixes=("", "_other"))
    differ = both[both["eczema"].fillna(-1) != both["eczema_other"].fillna(-1)]
    raise_if_any(
        f"{title}: the same cases have different labels in the two runs",
        [f"case {case!r}" for case in differ["case_id"]],
    )
