"""Built-in data with known truth, as a manifest: rendered photos and written complaints.

Writes a folder with `manifest.csv` (with the exact posterior of each case), `photos/`, `masks/`
(where each lesion is), `truth.jsonl` (all that was drawn for each row, and where each symptom is in
the text) and `dataset.json` (counts, and the limits: the AUROC of the exact posteriors). The same
number of cases and seed give the same bytes, with any number of processes.
"""

import multiprocessing
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import pandas as pd
from sklearn.metrics import roc_auc_score

from eczema_tf.data.progress import track
from eczema_tf.data.sources.source import Summary, write_source
from eczema_tf.data.synthetic.cases import MASK_FOLDER, PHOTO_FOLDER, Case, draw_case, render_case
from eczema_tf.data.synthetic.ground_truth import write_ground_truth
from eczema_tf.data.text.findings import join_findings
from eczema_tf.errors import DataError
from eczema_tf.schema import ECZEMA, FINDINGS, GRADE_COLUMNS, POSTERIOR_COLUMNS, WORDINGS

# raise it when the same seed no longer gives the same bytes (in 7, a text "None", which a manifest
# would read as empty, became "None.")
GENERATOR_VERSION = 7
PROVENANCE = {
    "attribution": "none needed: rendered photos and written complaints, made by eczema_tf",
    "licence": "Apache-2.0, like the program",
    "columns": {
        "eczema": "1 where the drawn condition is eczema, else 0: the truth, not an opinion",
        "consistency": (
            "what the exact posterior given the text says; unclear where the text mentions no"
            " symptom"
        ),
        "severity": "as drawn; empty for healthy skin",
        "age_group": "as stated in the text; empty if it is not",
        "wordings": "known, or new: words that no known text uses, for the test split only",
        "posterior_image, posterior_text, posterior_fusion": (
            "the exact P(eczema) given what was drawn, which no model can beat"
        ),
        "posterior_grade_image, posterior_grade_text, posterior_grade_fusion": (
            "the expected grade (0 mild, 1 moderate, 2 severe) given what was drawn, if it is"
            " eczema"
        ),
    },
}
PROCESSES = 2
_FEW_CASES = 200  # below this, starting processes takes longer than the work


def prepare_synthetic(
    out: Path | str, *, cases: int = 2000, texts: int = 0, seed: int = 0, overwrite: bool = False
) -> Summary:
    """Makes the built-in data.

    From 200 cases on, it works in two spawned processes. They import the script that calls this,
    which therefore needs the usual `if __name__ == "__main__":`.

    Args:
        out: The folder.
        cases: How many cases, at least 1. A case has up to three photos, one row each.
        texts: How many further cases, with only a text and only for training.
        seed: Seed of all that is drawn, at least 0.
        overwrite: Whether a folder already there may be replaced.

    Raises:
        DataError: If `cases`, `texts` or `seed` is out of range, or the processes were killed.
        EczemaError: If `out` exists and is not empty without `overwrite`, or cannot be written.
    """
    if cases < 1 or texts < 0 or seed < 0:
        raise DataError(
            "built-in data: allowed: 1 case or more, 0 texts or more, a seed of 0 or more;"
            f" received {cases}, {texts} and {seed}"
        )
    drawn = [draw_case(seed, index, text_alone=index >= cases) for index in range(cases + texts)]
    counts = {
        "rows": sum(len(case.example_ids) for case in drawn),
        "photos": sum(case.photos for case in drawn),
        "cases_without_photo": sum(case.photos == 0 for case in drawn),
        "cases_without_text": sum(not case.text for case in drawn),
        "unclear_texts": sum(bool(case.text) and not case.facts for case in drawn),
    }
    conditions = dict(sorted(Counter(case.condition for case in drawn).items()))
    return write_source(
        out,
        name="synthetic",
        rows=_map_drawn(drawn),
        counts=counts,
        description=f"{len(drawn)} cases",
        facts={
            "generator_version": GENERATOR_VERSION,
            "cases": len(drawn),
            "seed": seed,
            "counts": {**counts, "conditions": conditions},
            **PROVENANCE,
            "limits": {kind: _compute_limit(drawn, kind) for kind in POSTERIOR_COLUMNS},
        },
        make_files=partial(_make_files, drawn, seed),
        overwrite=overwrite,
    )


def _map_drawn(cases: Iterable[Case]) -> pd.DataFrame:
    """Makes the rows of the manifest. Ids are random, so that their order says nothing."""
    rows = []
    for case in cases:
        # what the text alone says: the label of the consistency head
        consistency = "unclear" if case.text else ""
        if case.text and case.facts:
            consistency = "eczema" if case.posterior["text"].eczema >= 0.5 else "other"
        rows += [
            {
                "example_id": example_id,
                "case_id": case.case_id,
                "group_id": case.case_id,
                "image_path": f"{PHOTO_FOLDER}/{example_id}.jpg" if case.photos else "",
                "text": case.text,
                "eczema": float(case.condition == ECZEMA),
                "consistency": consistency,
                "severity": case.severity,
                "split": case.split,
                "skin_tone": case.skin_tone,
                "age_group": case.age_group,
                "sex": case.sex,
                "source": "synthetic",
                WORDINGS: case.wordings,
                FINDINGS: join_findings(f"{p.category}={p.value}" for p in case.phrases)
                if case.text
                else "",
                **{POSTERIOR_COLUMNS[kind]: known.eczema for kind, known in case.posterior.items()},
                **{GRADE_COLUMNS[kind]: known.grade for kind, known in case.posterior.items()},
                "condition": case.condition,
                "body_site": case.body_site,
            }
            for example_id in case.example_ids
        ]
    return pd.DataFrame(rows).sort_values("example_id")


def _compute_limit(cases: Iterable[Case], kind: str) -> float | None:
    """Computes the exact posterior's AUROC, over cases that have one; None for a single class."""
    known = [case for case in cases if kind in case.posterior]
    labels = [case.condition == ECZEMA for case in known]
    if len(set(labels)) < 2:
        return None
    return float(roc_auc_score(labels, [case.posterior[kind].eczema for case in known]))


def _make_files(cases: Sequence[Case], seed: int, folder: Path) -> None:
    """Writes the ground truth and renders photos and masks."""
    write_ground_truth(folder, cases)
    for name in (PHOTO_FOLDER, MASK_FOLDER):
        (folder / name).mkdir()
    render = partial(render_case, folder, seed)
    progress = partial(track, name="built-in data", total=len(cases))
    if len(cases) < _FEW_CASES:
        deque(progress(map(render, range(len(cases)), cases)), maxlen=0)
        return
    # Spawned, not forked: a fork of a process that runs TensorFlow's threads may hang.
    with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            deque(progress(pool.map(render, range(len(cases)), cases, chunksize=20)), maxlen=0)
        except BrokenProcessPool as error:
            raise DataError(
                "built-in data: the processes that draw photos ended early: they were killed, or"
                ' started by a script without `if __name__ == "__main__":` around its code'
            ) from error
