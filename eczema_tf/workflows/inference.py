"""Runs manifest rows through a model, to logits and cases: the one way for all workflows."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from eczema_tf.cli import say
from eczema_tf.data.clinical.fields import encode_fields
from eczema_tf.data.dataset import Dataset
from eczema_tf.data.inputs import Inputs, load_inputs, to_model_inputs
from eczema_tf.data.photo.preprocess import preprocess_photo
from eczema_tf.data.pipeline import build_evaluation_dataset
from eczema_tf.data.text.reading import is_read
from eczema_tf.data.text.tokenizer import clean_text
from eczema_tf.errors import DataError
from eczema_tf.evaluation.grades import compute_sigmoid
from eczema_tf.evaluation.predictions import (
    BOUNDS,
    CONSISTENCY_LOGITS,
    LABEL_COLUMNS,
    SEVERITY_LOGITS,
    average_rows_by_case,
)
from eczema_tf.evaluation.thresholds import choose_kind
from eczema_tf.model.decision import KINDS, compute_decision
from eczema_tf.model.features import (
    Predictor,
    build_predictor,
    compute_features,
    frozen_encoders,
    open_cache,
)
from eczema_tf.model.losses import compute_probabilities
from eczema_tf.model.multimodal import heads_of
from eczema_tf.schema import (
    CLINICAL,
    DECISIONS,
    DISTANCES,
    ECZEMA_HEADS,
    GRADE_COLUMNS,
    IMAGE,
    IMAGE_PRESENT,
    MODALITIES,
    PADDING_MASK,
    POSTERIOR_COLUMNS,
    PRESENT,
    SIDE,
    TEXT_PRESENT,
    TOKEN_IDS,
)
from eczema_tf.workflows.run_folder import TrainedModel

KEPT_COLUMNS = (
    "example_id",
    "case_id",
    "eczema",
    *LABEL_COLUMNS,
    *POSTERIOR_COLUMNS.values(),
    *GRADE_COLUMNS.values(),
)

NEEDS = {  # head -> modality
    "eczema_image": "image",
    "eczema_text": "text",
    "consistency": "text",
    "severity_image": "image",
    "severity_text": "text",
}


def build_client_inputs(
    trained: TrainedModel,
    photos: Sequence[bytes],
    texts: Sequence[str],
    clinical: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """Preprocesses rows as clients send them, with the functions that training uses.

    Args:
        trained: The model.
        photos: Upright JPEGs; b"" for none.
        texts: As many texts, as written; "" for none.
        clinical: As many lines, from `data.clinical.lines.join_fields`; None for nothing.

    Returns:
        The model's inputs by name, (rows, ...).
    """
    shape = trained.model.input[IMAGE].shape[1:]
    pixels = np.zeros((len(photos), *shape), "float32")  # (rows, height, width, 3)
    for row, photo in enumerate(photos):
        if photo:
            pixels[row] = preprocess_photo(tf.constant(photo), shape[0], trained.config.preprocess)
    cleaned = clean_text(tf.constant([text.encode("utf-8", "replace") for text in texts]))
    token_ids, padding_mask = trained.tokenizer.traced(cleaned)  # (rows, tokens)
    inputs = {
        IMAGE: pixels,
        IMAGE_PRESENT: [bool(photo) for photo in photos],
        TOKEN_IDS: token_ids,
        PADDING_MASK: padding_mask,
        TEXT_PRESENT: cleaned != "",
    }
    if fields := trained.encoders.clinical:
        lines = tf.constant(
            [one.encode("utf-8", "replace") for one in clinical or [""] * len(texts)]
        )
        asked = np.array(inputs[IMAGE_PRESENT]) | inputs[TEXT_PRESENT].numpy()
        inputs[CLINICAL] = encode_fields(lines, fields)[0] * asked[:, None]
    return {name: value.numpy() for name, value in to_model_inputs(inputs).items()}


def load_model_inputs(trained: TrainedModel, dataset: Dataset) -> Inputs:
    """Preprocesses a data set as the served graph does, without what the model never saw."""
    inputs = load_inputs(
        dataset,
        tokenizer=trained.tokenizer,
        size_px=trained.encoders.image.size_px,
        preprocess=trained.config.preprocess,
        cache=open_cache(trained.config.train),
        clinical=trained.encoders.clinical,
    )
    return inputs.keep(trained.learned_from)


def predict_cases(
    trained: TrainedModel, dataset: Dataset, inputs: Inputs, rows: np.ndarray
) -> pd.DataFrame:
    """Predicts the cases of some rows; arguments as in `compute_row_logits`.

    Returns:
        One row per case, as from `average_rows_by_case`, without those of `drop_unanswered`.

    Raises:
        DataError: If the model uses nothing of any case.
    """
    logits = compute_row_logits(trained, dataset, inputs, rows)
    return drop_unanswered(average_rows_by_case(logits))


def drop_unanswered(cases: pd.DataFrame) -> pd.DataFrame:
    """Drops cases of which the model uses neither photo nor text, and says how many they are.

    Their probability says nothing of them: it is the same for all, and `score` leaves it empty.

    Raises:
        DataError: If no case is left.
    """
    answered = cases["image_used"] | cases["text_used"]
    missing = f"{(~answered).sum()} of {len(cases)} cases have no photo and no text that this model"
    if len(cases) and not answered.any():
        raise DataError(f"{missing} can use; give cases that have what it was trained on")
    if not answered.all():
        say(f"note: {missing} can use; they are left out")
    return cases[answered].reset_index(drop=True)


def predict_versions(
    trained: TrainedModel, dataset: Dataset, inputs: Inputs, versions: int
) -> list[pd.DataFrame]:
    """Predicts the cases of several versions of the same rows, in one go.

    Args:
        trained: The model.
        dataset: The rows of one version.
        inputs: The inputs of all versions, one below the other.
        versions: How many versions there are.

    Returns:
        The cases of each version, as from `average_rows_by_case`, in the same order.
    """
    rows = np.arange(len(inputs))
    below = dataset.take(rows % len(dataset.table))
    logits = compute_row_logits(trained, below, inputs, rows)
    return [average_rows_by_case(logits.iloc[of]) for of in np.split(rows, versions)]


def draw_cases(dataset: Dataset, rows: np.ndarray, cases: int, seed: int) -> np.ndarray:
    """Draws cases at random, and takes the first row of each.

    Args:
        dataset: The data set that the rows come from.
        rows: int64, the rows to choose from.
        cases: How many cases at most.
        seed: Seed of the draw.

    Returns:
        int64 (cases,), in order.
    """
    case_ids = dataset.table["case_id"].to_numpy(str)[rows]
    firsts = rows[np.sort(np.unique(case_ids, return_index=True)[1])]
    return np.sort(np.random.default_rng(seed).permutation(firsts)[:cases])


def compute_row_logits(
    trained: TrainedModel, dataset: Dataset, inputs: Inputs, rows: np.ndarray
) -> pd.DataFrame:
    """Computes the logits of some rows.

    Args:
        trained: The model.
        dataset: The data set that the rows come from.
        inputs: From `load_model_inputs`, of the whole data set.
        rows: int64, which rows.

    Returns:
        One row each: ids, labels, what was used, and logits by head (NaN where the modality that a
        head reads is absent); also what decisions depend on: distances and bounds.
    """
    train = trained.config.train
    frozen = frozen_encoders(train, trained.encoders) if train.cache_features else frozenset()
    cached = frozen | inputs.absent
    features = compute_features(trained.model, inputs, cached, open_cache(train))
    batches = build_evaluation_dataset(features, rows, train.batch_size)
    logits = _predictor_of(trained.model, cached)(batches)

    kept = [column for column in KEPT_COLUMNS if column in dataset.table]
    table = dataset.table[kept].iloc[rows].reset_index(drop=True)
    for column in (*POSTERIOR_COLUMNS.values(), *GRADE_COLUMNS.values()):
        if column in table:
            table[column] = pd.to_numeric(table[column], errors="coerce")
    if "text" in dataset.table:
        words = dataset.table["text"].iloc[rows].fillna("").str.split().str.len()
        table["text_words"] = words.to_numpy("int64")
    used = {modality: inputs.present(modality)[rows] for modality in MODALITIES}
    table = table.assign(
        **{f"{modality}_used": present for modality, present in used.items()},
        text_notice=inputs.text_notices[rows],
    )
    columns = {head: [f"{head}_logit"] for head in ECZEMA_HEADS.values()}
    columns |= {"consistency": CONSISTENCY_LOGITS, **SEVERITY_LOGITS}
    for head, names in columns.items():
        values = logits[head].astype("float64")  # (rows, logits)
        if head in NEEDS:
            values[~used[NEEDS[head]]] = np.nan
        table[names] = values
    present = {PRESENT[modality]: one for modality, one in used.items()}
    text_read = is_read(tf.constant(list(table["text_notice"]), tf.string))
    decided = compute_decision(logits, present, text_read)
    return table.assign(
        **{name: np.where(used[of], logits[name], np.nan) for of, name in DISTANCES.items()},
        **{name: np.asarray(decided[name]) for name in ("known_image", "known_text")},
        **read_bounds(trained.model, table),
    )


@lru_cache(maxsize=1)  # stress tests run one model many times, and a graph is slow to build
def _predictor_of(model: keras.Model, cached: frozenset[str]) -> Predictor:
    return build_predictor(heads_of(model, cached))


def read_answers(outputs: Any, inputs: Any, text_read: Any) -> dict[str, np.ndarray]:
    """Turns the model's outputs into signatures' answers; arguments as in `compute_decision`."""
    decided = compute_decision(outputs, inputs, text_read)
    found = {**compute_probabilities(outputs), **decided}
    answers = {name: np.asarray(value) for name, value in found.items()}
    named = np.array([one.encode() for one in DECISIONS], object)
    return answers | {"decision": named[answers["decision"]]}


def read_undecided(model: keras.Model) -> dict[str, tuple[float, float]]:
    """Returns the probabilities between which a case is undecided, by kind of case."""
    layer = model.get_layer(SIDE)
    ends = compute_sigmoid(np.stack([layer.low.numpy(), layer.high.numpy()], 1).astype("float64"))
    return {kind: (float(low), float(high)) for kind, (low, high) in zip(KINDS, ends, strict=True)}


def read_bounds(model: keras.Model, rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Returns the log-odds between which each row is undecided, for its kind: `BOUNDS`, (rows,)."""
    layer, used = model.get_layer(SIDE), rows[["image_used", "text_used"]].to_numpy(bool)
    kind = [KINDS.index(choose_kind(image, text)) for image, text in used]
    return {
        name: bound.numpy().astype("float64")[kind]
        for name, bound in zip(BOUNDS, (layer.low, layer.high), strict=True)
    }
