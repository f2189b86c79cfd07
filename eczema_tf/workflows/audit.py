"""The leakage audit where data enters.

`prepare` and `train` inspect the data set, join what belongs together, and refuse what leaks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from eczema_tf.cli import say
from eczema_tf.config import DataConfig
from eczema_tf.data.audit.audit import Audit, audit_dataset, check_splits
from eczema_tf.data.audit.overlap import Seen, find_overlap
from eczema_tf.data.dataset import FINGERPRINTS, Dataset, DatasetFacts, load_dataset
from eczema_tf.errors import DataError, raise_if_any, shorten
from eczema_tf.evaluation.records import Leaks
from eczema_tf.files import write_json
from eczema_tf.schema import MANIFEST_COLUMNS, OPTIONAL_COLUMNS, POSITIVE_CLASS

AUDIT = "audit.json"
NAMED_LEAKS = 20  # how many leaks a report names
SPLITS_LEAK = (
    "the splits leak; empty the manifest's column `split` and set data.merge_duplicates: true, and"
    " new splits will keep together what belongs together, or allow leaks with --allow-leaks (in a"
    " search with --set data.allow_leaks=true)"
)


@dataclass(frozen=True)
class AuditedDataset:
    """A data set whose groups keep together what belongs together, and what the audit found."""

    dataset: Dataset
    audit: Audit
    allow_leaks: bool

    def check(self, splits: pd.Series, seen: Sequence[Seen | None] = ()) -> Leaks:
        """Looks for groups and duplicates that straddle splits, and for judged rows that were seen.

        Args:
            splits: The split of each row.
            seen: What the runs whose model is extended have seen; no judged row may be among it.

        Returns:
            What was found, for every report of the run.

        Raises:
            DataError: If anything is found, unless leaks are allowed.
        """
        findings = check_splits(self.audit.table, splits, self.audit.duplicates)
        leaks = _record_leaks(SPLITS_LEAK, findings, self.allow_leaks)
        judged = np.flatnonzero(splits != "train")
        overlap = check_overlap(seen, self.dataset, judged, allow_leaks=self.allow_leaks)
        return leaks if overlap is None else add_leaks([leaks, overlap])


def load_audited(config: DataConfig, manifest_path: Path | str) -> AuditedDataset:
    """Loads a data set, audits it and joins groups that share a duplicate.

    Args:
        config: Configuration of the data; `merge_duplicates` says whether groups are joined.
        manifest_path: The manifest.
    """
    return _audit(config, load_dataset(config, manifest_path))


def check_overlap(
    seen: Sequence[Seen | None], dataset: Dataset, rows: np.ndarray, *, allow_leaks: bool
) -> Leaks | None:
    """Looks for rows whose photo or text a run was trained or validated on.

    Args:
        seen: What the run has seen, and what the runs whose model it kept have seen; None for a run
            that does not say.
        dataset: The data set that the rows come from.
        rows: int64, the rows to be evaluated.
        allow_leaks: Whether such rows are recorded instead of refused.

    Returns:
        What was found, for every report; None if a run does not say what it has seen.

    Raises:
        DataError: If there are any, unless they are allowed.
    """
    if None in seen:
        say("audit: the run does not say what it was trained on; to have it compared, train again")
        return None
    title = (
        "the run has already seen rows that it would be evaluated on; leave these rows out, or"
        " allow them with --allow-leaks"
    )
    found = [line for one in seen if one for line in find_overlap(one, dataset, rows)]
    return _record_leaks(title, found, allow_leaks)


def add_leaks(found: Sequence[Leaks]) -> Leaks:
    """Adds up what was found in several ways, or in several divisions of the same cases."""
    examples = [line for one in found for line in one.examples]
    return Leaks(leaks=sum(one.leaks for one in found), examples=examples[:NAMED_LEAKS])


def _record_leaks(title: str, findings: list[str], allow_leaks: bool) -> Leaks:
    if not allow_leaks:
        raise_if_any(title, findings)
    return Leaks(leaks=len(findings), examples=findings[:NAMED_LEAKS])


def load_as_trained(config: DataConfig, trained_on: DatasetFacts) -> Dataset:
    """Loads a run's own data set, with the groups that training joined.

    It is audited again only if it has changed since, or if the run does not say what it joined.

    Args:
        config: Configuration of the data.
        trained_on: What the run recorded about its data set.

    Raises:
        DataError: If the manifest is no longer where it was.
    """
    if not Path(trained_on.manifest).is_file():
        raise DataError(
            f"{trained_on.manifest}: the run was trained on it, but it is not there, seen from"
            f" {Path.cwd()}; say where it is now: --manifest FILE"
        )
    dataset = load_dataset(config, trained_on.manifest)
    joined, unchanged = trained_on.joined_groups, is_alike(dataset, trained_on)
    if joined is not None and unchanged:
        return dataset.join_groups(joined)
    if not unchanged:
        say(f"note: {trained_on.manifest} or its photos have changed since training")
    return _audit(config, dataset).dataset


def is_alike(dataset: Dataset, facts: DatasetFacts, names: Sequence[str] = FINGERPRINTS) -> bool:
    """Says whether a data set has the fingerprints that a run recorded, or the named ones."""
    now = dataset.describe()
    return all(getattr(now, name) == getattr(facts, name) for name in names)


def audit_prepared(folder: Path, *, allow_leaks: bool = False) -> None:
    """Audits a manifest folder that `prepare` has just written, and writes `audit.json` into it.

    Args:
        folder: Contains `manifest.csv`, and `embeddings.npz` if embeddings replace the photos.
        allow_leaks: Whether leaks between the manifest's own splits are recorded instead of
            refused.

    Raises:
        DataError: If the manifest's own splits leak and leaks are not allowed.
    """
    embeddings = folder / "embeddings.npz"
    config = DataConfig(
        embeddings=str(embeddings) if embeddings.is_file() else None, allow_leaks=True
    )
    audit = load_audited(config, folder / "manifest.csv").audit
    splits = audit.table["split"]
    divided = (splits != "").all()
    findings = check_splits(audit.table, splits, audit.duplicates) if divided else []
    leaks = _record_leaks(SPLITS_LEAK, findings, allow_leaks=True)
    write_json(folder / AUDIT, {**audit.report.model_dump(), **leaks.model_dump()})
    if not allow_leaks:
        raise_if_any(SPLITS_LEAK, findings)


def _audit(config: DataConfig, dataset: Dataset) -> AuditedDataset:
    audit = audit_dataset(
        dataset, label_threshold=config.label_threshold, join=config.merge_duplicates
    )
    say(audit.report.describe())
    used = {*MANIFEST_COLUMNS, *OPTIONAL_COLUMNS, *config.clinical, POSITIVE_CLASS, "image_file"}
    if (unused := set(dataset.table) - used) and not dataset.is_prepared:
        say(f"note: columns that are not used: {shorten(', '.join(sorted(unused)))}")
    if bad := len(dataset.manifest.rejected):
        say(f"note: bad rows left out: {bad}; for the reasons see {dataset.manifest.rejected_file}")
    if lost := dataset.manifest.without_embedding:
        say(f"note: {lost} rows name a photo that has no embedding; only their text is used")
    moved = audit.group_id != dataset.table["group_id"]
    ids = dataset.table["example_id"]
    dataset = dataset.join_groups(dict(zip(ids[moved], audit.group_id[moved], strict=True)))
    return AuditedDataset(dataset, audit, config.allow_leaks)
