"""A data set ready for use: the checked manifest, and its photos or its embeddings.

All photos are decoded once, so that none can fail later.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field

from eczema_tf.config import DataConfig
from eczema_tf.data.cache import fingerprint
from eczema_tf.data.manifest.table import Manifest, find_templates, load_manifest, reject_bad_photos
from eczema_tf.data.photo.embeddings import Embeddings, load_embeddings
from eczema_tf.data.photo.inspection import inspect_photos
from eczema_tf.errors import DataError, RunError
from eczema_tf.files import Record
from eczema_tf.schema import ECZEMA, POSITIVE_CLASS, PREPARED


class Prepared(Record):
    """What is read from `dataset.json`: sentences, and by reason how many cases were left out."""

    source: str | None = None
    attribution: str | None = None
    licence: str | None = None
    label: str | None = None
    not_kept: dict[str, int] = Field(default_factory=dict)


class CaseCounts(Record):
    """Counts of a set of rows."""

    rows: int
    cases: int
    groups: int
    image_only: int
    text_only: int
    both: int
    eczema_labelled: int
    eczema_mean: float | None
    consistency: dict[str, int]
    severity: dict[str, int]


# the fields of `DatasetFacts` that differ if the data differ
FINGERPRINTS = ("manifest_fingerprint", "photos_fingerprint", "embeddings_fingerprint")


class DatasetFacts(Record):
    """What a run folder records about its data set."""

    manifest: str
    manifest_fingerprint: str
    photos_fingerprint: str
    embeddings_fingerprint: str | None
    rejected_rows: int
    positive_class: str = ECZEMA  # what the label `eczema` stands for
    # attribution, licence, and the rule by which the label was made
    provenance: dict[str, str]
    # how many cases `prepare` left out, by reason
    not_kept: dict[str, int] = Field(default_factory=dict)
    template_texts: int = 0  # rows whose text a program wrote
    counts: CaseCounts
    sources: dict[str, int]
    # by example id: the new group of rows whose group was joined with another because of a
    # duplicate; None in older runs, which did not record it
    joined_groups: dict[str, str] | None = None

    def name_sources(self) -> str:
        """Names the sources of the rows, with the number of rows from each."""
        return ", ".join(f"{name or 'not said'} ({rows})" for name, rows in self.sources.items())


@dataclass(frozen=True)
class Dataset:
    """What `load_dataset` returns.

    Attributes:
        manifest: The manifest, with the groups that splits must keep together.
        photos: By file: sha256, gray, error (see `inspect_photos`); only photos without an error.
        embeddings: They stand in for the photos, if given.
        joined_groups: By example id: the group of the rows that `join_groups` moved.
    """

    manifest: Manifest
    photos: pd.DataFrame
    embeddings: Embeddings | None
    joined_groups: Mapping[str, str] = field(default_factory=dict)

    @property
    def table(self) -> pd.DataFrame:
        """The manifest's rows."""
        return self.manifest.table

    @property
    def positive_class(self) -> str:
        """What the label `eczema` stands for."""
        return self.table.get(POSITIVE_CLASS, [ECZEMA])[0]

    @property
    def is_prepared(self) -> bool:
        """Whether `prepare` wrote the manifest, and so knows its columns."""
        return self.manifest.path.with_name(PREPARED).is_file()

    def take(self, rows: np.ndarray) -> "Dataset":
        """Makes a data set of some rows, int64 (new rows,); a row may occur more than once."""
        table = self.table.iloc[rows].reset_index(drop=True)
        return replace(self, manifest=replace(self.manifest, table=table))

    def join_groups(self, group_of: Mapping[str, str]) -> "Dataset":
        """Moves rows to other groups.

        Args:
            group_of: The new group by example id; rows that are not in it keep theirs.
        """
        own = zip(self.table["example_id"], self.table["group_id"], strict=True)
        groups = [group_of.get(example_id, group) for example_id, group in own]
        manifest = replace(self.manifest, table=self.table.assign(group_id=groups))
        return replace(self, manifest=manifest, joined_groups=group_of)

    def describe(self) -> DatasetFacts:
        """Returns fingerprints and counts, for the run folder."""
        matrix = self.embeddings.matrix if self.embeddings is not None else None
        path = self.manifest.path
        prepared = _read_prepared(path.with_name(PREPARED))
        return DatasetFacts(
            manifest=str(path),
            manifest_fingerprint=fingerprint(path.read_bytes()),
            photos_fingerprint=fingerprint(sorted(self.photos["sha256"])),
            embeddings_fingerprint=fingerprint(matrix) if matrix is not None else None,
            rejected_rows=len(self.manifest.rejected),
            positive_class=self.positive_class,
            provenance=prepared.model_dump(exclude={"not_kept"}, exclude_none=True),
            not_kept=prepared.not_kept,
            template_texts=int(find_templates(self.table).sum()),
            counts=count_cases(self.table),
            sources=dict(Counter(self.table["source"])),
            joined_groups=dict(self.joined_groups),
        )


def load_dataset(config: DataConfig, manifest_path: Path | str) -> Dataset:
    """Reads and checks a manifest and everything it points to.

    Args:
        config: Embeddings, and whether to skip bad rows.
        manifest_path: The manifest.

    Raises:
        DataError: Listing every bad row, unless bad rows are skipped.
    """
    embeddings = load_embeddings(config.embeddings) if config.embeddings else None
    manifest = load_manifest(
        manifest_path,
        skip_bad_rows=config.skip_bad_rows,
        embeddings=embeddings,
        allow_leaks=config.allow_leaks,
        clinical=config.clinical,
    )
    photos = inspect_photos(manifest.table["image_file"])
    manifest = reject_bad_photos(manifest, photos, skip_bad_rows=config.skip_bad_rows)
    return Dataset(manifest, photos[photos["error"] == ""], embeddings)


def count_cases(table: pd.DataFrame) -> CaseCounts:
    """Counts rows, cases, groups, modalities and labels of a manifest's table."""
    has_image, has_text = table["image_path"] != "", table["text"] != ""
    labels = table["eczema"].dropna()
    counts = {
        column: dict(sorted(Counter(value for value in table[column] if value).items()))
        for column in ("consistency", "severity")
    }
    return CaseCounts(
        rows=len(table),
        cases=table["case_id"].nunique(),
        groups=table["group_id"].nunique(),
        image_only=int((has_image & ~has_text).sum()),
        text_only=int((~has_image & has_text).sum()),
        both=int((has_image & has_text).sum()),
        eczema_labelled=len(labels),
        eczema_mean=round(float(labels.mean()), 6) if len(labels) else None,
        consistency=counts["consistency"],
        severity=counts["severity"],
    )


def _read_prepared(path: Path) -> Prepared:
    """Reads what `prepare` wrote next to the manifest; empty if something else wrote the manifest.

    Raises:
        DataError: If `prepare` did not write the file.
    """
    if not path.is_file():
        return Prepared()
    try:
        return Prepared.read(path)
    except RunError as error:
        raise DataError(
            f"{error}; prepare the data set again, or move the file away if something else wrote it"
        ) from error
