"""SCIN, the Skin Condition Image Network, as a manifest.

Google Research and Stanford Medicine, 2024; arXiv 2402.18545. Takes the official `scin_cases.csv`
and `scin_labels.csv` and, if there are any, photos or precomputed photo embeddings. Writes a folder
with `manifest.csv`, `dataset.json` (counts and how each column was made) and the photos or
embeddings.

The label is the weight of "Eczema" in the dermatologists' vote, 0 where they voted only for other
conditions, or a yes or no made from it. The same model looks better or worse depending on the rule
(`LABEL_RULES`), so the rule is recorded. SCIN has no free text: `scin_text.describe_case` writes a
template, and the columns `source` and `text_kind` say so.
"""

import ast
import math
import statistics
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pandas as pd

from eczema_tf.data.audit.duplicates import find_leaders
from eczema_tf.data.manifest.reading import clean_cell
from eczema_tf.data.photo.embeddings import load_embeddings
from eczema_tf.data.sources.dermavqa import NAMES_DERMATITIS
from eczema_tf.data.sources.scin_text import FLAG_COLUMNS, describe_case
from eczema_tf.data.sources.source import (
    Summary,
    build_rows,
    count_photos,
    find_photos,
    read_table,
    write_source,
)
from eczema_tf.data.sources.table_map import fold
from eczema_tf.errors import DataError, raise_if_any, shorten
from eczema_tf.schema import TEMPLATE

CONDITION = "Eczema"  # as SCIN writes it
VOTE = "weighted_skin_condition_label"
PHOTO_COLUMNS = ("image_1_path", "image_2_path", "image_3_path")
GRADABLE_COLUMNS = tuple(
    f"dermatologist_gradable_for_skin_condition_{reader}" for reader in (1, 2, 3)
)
TONE_COLUMNS = tuple(f"dermatologist_fitzpatrick_skin_type_label_{reader}" for reader in (1, 2, 3))
MONK_COLUMNS = ("monk_skin_tone_label_us", "monk_skin_tone_label_india")
MONK_TONES = ("", *map(str, range(1, 11)))
LABEL_RULES = {
    "share": "the weight of eczema in the dermatologists' vote",
    "any": "1 where the vote has any weight for eczema, else 0",
    "majority": "1 where more than half of the vote is for eczema, else 0",
    "against-no-dermatitis": (
        "1 where more than half of the vote is for eczema, 0 where none of it is for a dermatitis;"
        " cases in between are left out, so results are better than among all who ask"
    ),
}
FITZPATRICK = {"FST1": "I", "FST2": "II", "FST3": "III", "FST4": "IV", "FST5": "V", "FST6": "VI"}
CASE_COLUMNS = (
    "case_id",
    "age_group",
    "sex_at_birth",
    "related_category",
    "condition_duration",
    *FLAG_COLUMNS,
    *PHOTO_COLUMNS,
)
VOTE_COLUMNS = ("case_id", VOTE, *GRADABLE_COLUMNS, *TONE_COLUMNS)
PROVENANCE = {
    "attribution": "SCIN dataset, Google LLC and Stanford Medicine (arXiv 2402.18545)",
    "licence": "SCIN Data Use License: share and adapt with attribution, no re-identification",
    "columns": {
        "eczema": (
            f'weight of "{CONDITION}" in {VOTE}, 0 where only other conditions are named; or a yes'
            " or no made from it, as `label` says"
        ),
        "text": (
            "template from the self-reported flags, not free text; a blank flag is never read as a"
            " no; empty where nothing is reported"
        ),
        "skin_tone": "median of the dermatologists' Fitzpatrick labels (the lower one of two)",
        "monk_skin_tone": "the lower of the Monk labels from the US and from India",
        "group_id": (
            "cases that share a photo, directly or through others, are one group; there is no"
            " patient id"
        ),
    },
}
LEFT_OUT = {
    "ungradable": "no dermatologist could grade the photos",
    "unlabelled": "no condition was named",
    "between": "the vote was between eczema by a majority and no dermatitis at all",
    "empty": "nothing was reported, and no photo is available",
}
DESCRIPTION = """\
{cases} cases: {kept} kept, {ungradable} left out as ungradable, {unlabelled} as unlabelled, \
{between} as neither eczema nor free of dermatitis, {empty} with neither photo nor text
label, {label}
{eczema} of the kept cases ({share:.1%}) have a label above 0
{photo_rows} rows with a photo, {text_rows} with only text; {missing_photos} photos are missing; \
{sharing} cases share a photo with another
texts are templates, not the patients' own words"""


def prepare_scin(
    out: Path | str,
    *,
    cases: Path | str,
    labels: Path | str,
    images: Path | str | None = None,
    embeddings: Path | str | None = None,
    label: str = "share",
    overwrite: bool = False,
) -> Summary:
    """Writes a manifest folder from the official SCIN files.

    Args:
        out: The folder.
        cases: `scin_cases.csv`.
        labels: `scin_labels.csv`.
        images: A folder with photos, as `<name>` or `dataset/images/<name>`; those found are linked
            (or copied) into `out`.
        embeddings: An `.npz` of photo embeddings by image path, linked (or copied) into `out`.
            Without `images`, the photos that have an embedding become rows.
        label: One of `LABEL_RULES`.
        overwrite: Whether a folder already there may be replaced.

    Raises:
        DataError: If there is no such rule, a file lacks columns, a label cannot be read, no case
            is labelled, no photo or embedding belongs to a labelled case, or `out` contains one of
            the inputs.
        EczemaError: If `out` cannot be written.
    """
    if label not in LABEL_RULES:
        raise DataError(f"label {label!r}: allowed: {', '.join(LABEL_RULES)}")
    table = _read_cases(Path(cases), Path(labels), label)
    labelled = table[table["fate"] == "labelled"]
    paths = labelled[[*PHOTO_COLUMNS]].to_numpy().ravel()
    # under their official path, which is also the key of their embedding
    photos = find_photos(images, paths, side_by_side=True)
    known: Collection[str] = photos if images or not embeddings else load_embeddings(embeddings)
    rows = _map_cases(labelled, known).assign(label_rule=label)
    if embeddings and (rows.empty or not rows["image_path"].any()):
        raise DataError(f"{embeddings}: has none of the labelled cases' photos, like {paths[0]!r}")
    if rows.empty:
        raise DataError(f"{cases}: no labelled case has a text or a photo; give --images")
    kept, rule = rows.drop_duplicates("case_id"), f"{label}: {LABEL_RULES[label]}"
    missing = len({*filter(None, paths)} - {*known}) if images or embeddings else 0
    counts = _count_cases(table, kept) | count_photos(rows)  # a photo may be an embedding
    counts["missing_photos"] = missing
    return write_source(
        out,
        name="scin",
        rows=rows,
        counts=counts,
        description=DESCRIPTION.format(
            **counts, share=counts["eczema"] / counts["kept"], label=rule
        ),
        facts={"label": rule, **PROVENANCE},
        left_out=LEFT_OUT,
        inputs=(cases, labels, images, embeddings),
        files=photos | ({"embeddings.npz": Path(embeddings)} if embeddings else {}),
        overwrite=overwrite,
    )


def _count_cases(table: pd.DataFrame, kept: pd.DataFrame) -> dict[str, int]:
    """Counts what became of the cases; `kept` has one row per case."""
    fates = {fate: int((table["fate"] == fate).sum()) for fate in ("labelled", *LEFT_OUT)}
    return {
        "cases": len(table),
        **{fate: fates[fate] for fate in ("ungradable", "unlabelled", "between")},
        "empty": fates["labelled"] - len(kept),  # nothing reported, and no photo is available
        "kept": len(kept),
        "eczema": int((kept["eczema"] > 0).sum()),
        "sharing": int(kept["group_id"].duplicated(keep=False).sum()),
    }


def compute_label(vote: Mapping[str, float], rule: str = "share") -> float:
    """Computes the label of a case from its vote, in [0, 1]; NaN where the rule leaves it out.

    Weights are given to two decimals, so their sum may slightly exceed 1.

    Args:
        vote: Weight by condition.
        rule: One of `LABEL_RULES`.
    """
    weight = round(min(float(vote.get(CONDITION, 0.0)), 1.0), 4)
    if rule == "share":
        return weight
    if rule == "any":
        return float(weight > 0)
    if (
        rule == "against-no-dermatitis"
        and weight <= 0.5
        and any(map(NAMES_DERMATITIS.search, vote))
    ):
        return math.nan
    return float(weight > 0.5)


def _read_cases(cases: Path, labels: Path, rule: str) -> pd.DataFrame:
    """Reads both files; adds `group_id`, `eczema` and `fate`.

    A case is `labelled`; `ungradable`, if a dermatologist said so and none could grade it;
    `unlabelled`, if it is not in the labels file, or is gradable and no condition was named; or
    `between`, if the rule of the label leaves it out.
    """
    given = _read_unique(cases, CASE_COLUMNS)
    voted = _read_unique(labels, VOTE_COLUMNS, MONK_COLUMNS)  # these are not in every release
    joined = given.merge(voted, on="case_id", how="left").fillna("")
    votes = [_parse_vote(text) for text in joined[VOTE]]
    raise_if_any(f"{labels}: votes or skin tones cannot be read", _find_unread(joined))
    # cases that share a photo, directly or through others, are one group, named after the first
    photos = joined[[*PHOTO_COLUMNS]].reset_index().melt("index", value_name="photo")
    photos = photos[photos["photo"] != ""]
    first = photos.groupby("photo")["index"].transform("min")
    leaders = find_leaders(len(joined), first, photos["index"])
    grades = joined[[*GRADABLE_COLUMNS]]
    gradable = grades.apply(lambda column: column.str.contains("YES")).any(axis=1)
    refused = grades.apply(lambda column: column.str.startswith("NO_")).any(axis=1)
    eczema = pd.Series([compute_label(vote or {}, rule) for vote in votes])
    fate = (refused & ~gradable).map({True: "ungradable", False: "unlabelled"})
    fate = fate.mask(list(map(bool, votes)), "labelled").mask(eczema.isna(), "between")
    if not (fate == "labelled").any():
        raise DataError(f"{labels}: no case has a label by the rule {rule}")
    group_id = joined["case_id"].to_numpy()[leaders]
    return joined.assign(group_id=group_id, eczema=eczema, fate=fate)


def _read_unique(
    path: Path, columns: Collection[str], optional: Collection[str] = ()
) -> pd.DataFrame:
    table = read_table(path, columns, optional).reset_index(drop=True)
    ids = table["case_id"]
    raise_if_any(f"{path}: cases appear twice", ids[ids.duplicated()].unique())
    return table


def _parse_vote(text: str) -> dict[str, float] | None:
    """Returns the weight of each condition; None if it is not a vote."""
    try:
        vote = ast.literal_eval(text) if text else {}
        return vote if all(0 <= weight <= 1.05 for weight in vote.values()) else None
    except (ValueError, SyntaxError, TypeError, AttributeError, MemoryError, RecursionError):
        return None


def _parse_shade(text: str) -> str | None:
    """Returns a tone of Monk's scale, "" for none; None if it is not a tone."""
    shade = fold(clean_cell("monk_skin_tone", text))  # a column with gaps may hold 4.0
    return shade if shade in MONK_TONES else None


def _find_unread(joined: pd.DataFrame) -> Iterator[str]:
    """Yields the faults of votes and of Monk's tones, where the release has these."""
    parsers = {
        VOTE: (_parse_vote, "{'Condition': weight, ...}"),
        **dict.fromkeys(MONK_COLUMNS, (_parse_shade, "a whole number, 1 to 10")),
    }
    for column, (parse, allowed) in parsers.items():
        for case_id, text in zip(joined["case_id"], joined.get(column, ()), strict=False):
            if parse(text) is None:
                yield f"case {case_id}: {column}: allowed: {allowed}; received {shorten(text)!r}"


def _map_cases(cases: pd.DataFrame, photos: Collection[str]) -> pd.DataFrame:
    """Makes the rows of the manifest."""
    rows = []
    for case in cases.to_dict("records"):
        tones = sorted(case[column] for column in TONE_COLUMNS if case[column] in FITZPATRICK)
        shades = [_parse_shade(case.get(column, "")) for column in MONK_COLUMNS]
        age = case["age_group"].removeprefix("AGE_").replace("UNKNOWN", "").replace("_TO_", "-")
        shared = {
            "case_id": case["case_id"],
            "group_id": case["group_id"],
            "text": describe_case(case),
            "eczema": case["eczema"],
            "skin_tone": FITZPATRICK[statistics.median_low(tones)] if tones else "",
            "monk_skin_tone": min(filter(None, shades), key=int, default=""),
            "age_group": age,
            "sex": {"FEMALE": "female", "MALE": "male"}.get(case["sex_at_birth"], ""),
            "source": "template",
            "text_kind": TEMPLATE,
        }
        paths = [path for column in PHOTO_COLUMNS if (path := case[column]) and path in photos]
        rows += build_rows(shared, paths)
    return pd.DataFrame(rows)
