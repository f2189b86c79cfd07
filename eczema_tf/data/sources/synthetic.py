"""Built-in data with known truth, as a manifest: rendered photos, written complaints and the exact posterior of each case.

Out comes a folder with `manifest.csv`, `photos/`, `masks/` (where each lesion is), `truth.jsonl`
(all that was drawn for each row, and where each symptom stands in the text) and `dataset.json`
(counts, and the limits: the AUROC of the exact posteriors). Same number of cases and seed, same
bytes, on any number of processes.
"""

import json
import multiprocessing
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from eczema_tf.data.synthetic.cases import MASKS, PHOTOS, Case, make_case
from eczema_tf.data.synthetic.tables import ECZEMA
from eczema_tf.files import replacing_folder, write_csv, write_json, write_text
from eczema_tf.schema import MANIFEST_COLUMNS, POSTERIOR_COLUMNS

GENERATOR_VERSION = 1  # raise it when the same seed no longer gives the same bytes
PROVENANCE = {
    "attribution": "nobody to name: rendered photos and written complaints, made by eczema_tf",
    "licence": "Apache-2.0, as the program",
    "columns": {
        "eczema": "1 where the drawn condition is eczema, else 0: the truth, not an opinion",
        "consistency": (
            "what the exact posterior given the text says; unclear where the text mentions no"
            " symptom"
        ),
        "severity": "as drawn; empty for healthy skin",
        "posterior_image, posterior_text, posterior_fusion": (
            "the exact P(eczema) given what was drawn, which no model can beat"
        ),
    },
}
PROCESSES = 2
_FEW_CASES = 100  # below this, starting processes takes longer than the work


def prepare_synthetic(
    out: Path | str, *, cases: int = 2000, seed: int = 0, overwrite: bool = False
) -> Path:
    """Makes the built-in data.

    Works in two spawned processes from 100 cases on: a script that calls this needs the usual `if
    __name__ == "__main__":`.

    Args:
        out: The folder.
        cases: How many cases, at least 1. A case has up to three photos, one row each.
        seed: Of all that is drawn, at least 0.
        overwrite: Whether a folder already there may be replaced.

    Returns:
        The path of the manifest.

    Raises:
        EczemaError: If `out` exists and is not empty without `overwrite`, or cannot be written.
    """
    out = Path(out)
    with replacing_folder(out, overwrite=overwrite) as aside:
        for folder in (PHOTOS, MASKS):
            (aside / folder).mkdir()
        made = list(_make_cases(aside, cases, seed))
        rows = sorted(
            (row for case in made for row in _build_rows(case)), key=lambda row: row["example_id"]
        )  # ids are random
        write_csv(aside / "manifest.csv", pd.DataFrame(rows))
        truths = {truth["example_id"]: truth for case in made for truth in _describe_truth(case)}
        write_text(
            aside / "truth.jsonl",
            "".join(json.dumps(truths[row["example_id"]]) + "\n" for row in rows),
        )
        write_json(aside / "dataset.json", _summarise(made, seed))
    return out / "manifest.csv"


def _make_cases(folder: Path, cases: int, seed: int) -> Iterator[Case]:
    make = partial(make_case, folder, seed)
    progress = partial(tqdm, total=cases, desc="built-in data", unit="case")
    if cases < _FEW_CASES:
        yield from progress(map(make, range(cases)))
        return
    # Spawned, not forked: a fork of a process that runs TensorFlow's threads may hang.
    with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from progress(pool.map(make, range(cases), chunksize=20))


def _build_rows(case: Case) -> Iterator[dict[str, Any]]:
    for example_id in case.example_ids:
        row = {
            "example_id": example_id,
            "case_id": case.case_id,
            "group_id": case.case_id,
            "image_path": f"{PHOTOS}/{example_id}.jpg" if case.photos else "",
            "text": case.text,
            "eczema": float(case.condition == ECZEMA),
            "consistency": _judge_text(case),
            "severity": case.severity,
            "split": "",
            "skin_tone": case.skin_tone,
            "age_group": case.age_group,
            "sex": case.sex,
            "source": "synthetic",
        }
        posteriors = {column: case.posterior[kind] for kind, column in POSTERIOR_COLUMNS.items()}
        extra = {"condition": case.condition, "body_site": case.body_site}
        yield {**{column: row[column] for column in MANIFEST_COLUMNS}, **posteriors, **extra}


def _judge_text(case: Case) -> str:
    """What the text alone says: the label of the consistency head."""
    if not case.text:
        return ""
    if not case.facts:
        return "unclear"
    return "eczema" if case.posterior["text"] >= 0.5 else "other"


def _describe_truth(case: Case) -> Iterator[dict[str, Any]]:
    for example_id in case.example_ids:
        yield {
            "example_id": example_id,
            "case_id": case.case_id,
            "condition": case.condition,
            "severity": case.severity,
            "body_site": case.body_site,
            "attributes": case.attributes,
            "facts": case.facts,
            "phrases": [asdict(phrase) for phrase in case.phrases],
            "mask_path": f"{MASKS}/{example_id}.png" if case.photos else "",
        }


def _summarise(cases: list[Case], seed: int) -> dict[str, Any]:
    return {
        "source": "synthetic",
        "generator_version": GENERATOR_VERSION,
        "cases": len(cases),
        "seed": seed,
        "counts": {
            "rows": sum(len(case.example_ids) for case in cases),
            "photos": sum(case.photos for case in cases),
            "cases_without_photo": sum(case.photos == 0 for case in cases),
            "cases_without_text": sum(not case.text for case in cases),
            "unclear_texts": sum(bool(case.text) and not case.facts for case in cases),
            "conditions": dict(sorted(Counter(case.condition for case in cases).items())),
        },
        **PROVENANCE,
        "limits": {kind: _compute_limit(cases, kind) for kind in POSTERIOR_COLUMNS},
    }


def _compute_limit(cases: list[Case], kind: str) -> float | None:
    """AUROC of the exact posterior over the cases that have one; `None` where they are all of one class."""
    pairs = [
        (case.condition == ECZEMA, case.posterior[kind])
        for case in cases
        if case.posterior[kind] is not None
    ]
    labels, scores = zip(*pairs, strict=True) if pairs else ((), ())
    return float(roc_auc_score(labels, scores)) if len(set(labels)) == 2 else None
