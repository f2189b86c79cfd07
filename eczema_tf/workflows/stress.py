"""Answers cases again: without photo or text, with another case's, and with corrupted ones."""

import io
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
from PIL import Image

from eczema_tf.cli import say
from eczema_tf.data.cache import fingerprint
from eczema_tf.data.corruption import Corruption
from eczema_tf.data.corruption.photo import PHOTO_CORRUPTIONS, shrink
from eczema_tf.data.corruption.text import TEXT_CORRUPTIONS
from eczema_tf.data.dataset import Dataset
from eczema_tf.data.inputs import Column, Inputs, read_texts
from eczema_tf.data.photo.files import encode_image
from eczema_tf.data.photo.preprocess import preprocess_photo
from eczema_tf.data.photo.upright import read_upright
from eczema_tf.data.progress import track
from eczema_tf.evaluation.stress import StressedCases, remove_some
from eczema_tf.schema import IMAGE, MODALITIES
from eczema_tf.workflows.inference import draw_cases, load_model_inputs, predict_versions
from eczema_tf.workflows.run_folder import TrainedModel

Stressed = Mapping[str, StressedCases]  # by the name of the test
AS_IS = "as is"  # among the corruptions, the reference that they are compared with


def predict_missing(
    trained: TrainedModel, dataset: Dataset, inputs: Inputs, rows: np.ndarray
) -> Stressed:
    """Answers cases that have a photo and a text without either, and with another case's.

    All of this uses cached features.

    Args:
        trained: The model.
        dataset: The data set that the rows come from.
        inputs: From `load_model_inputs`, of the whole data set.
        rows: int64, the rows to choose from.

    Returns:
        The answers by name of the test; none if fewer than two cases have both.
    """
    case_ids, seed = dataset.table["case_id"].to_numpy(str), trained.config.seed
    having = {name: rows[inputs.present(name)[rows]] for name in MODALITIES}
    both = np.intersect1d(*(case_ids[having[name]] for name in MODALITIES))
    if len(both) < 2:
        return {}
    rows = rows[np.isin(case_ids[rows], both)]
    order = np.random.default_rng(seed).permutation(both)
    another = dict(zip(order, np.roll(order, 1), strict=True))  # no case gets its own

    def take_another(modality: str) -> np.ndarray:
        first = dict(zip(case_ids[having[modality]][::-1], having[modality][::-1], strict=True))
        return np.array([first[another[case]] for case in case_ids[rows]])

    none, versions = np.full(len(rows), -1), 5
    photos = np.concatenate([rows, none, rows, take_another("image"), rows])
    texts = np.concatenate([rows, rows, none, rows, take_another("text")])
    whole, no_photo, no_text, other_photo, other_text = predict_versions(
        trained, dataset.take(rows), inputs.pair(photos, texts, np.tile(rows, versions)), versions
    )
    return {
        "photo_missing": StressedCases("image", remove_some(whole, no_photo, seed)),
        "text_missing": StressedCases("text", remove_some(whole, no_text, seed)),
        "photo_of_another": StressedCases("image", {0.0: whole, 1.0: other_photo}),
        "text_of_another": StressedCases("text", {0.0: whole, 1.0: other_text}),
    }


def predict_corrupted(
    trained: TrainedModel, dataset: Dataset, rows: np.ndarray, cases: int
) -> Stressed:
    """Answers cases with corrupted photos, and with corrupted texts; nothing of it stays on disk.

    Args:
        trained: The model; its configuration's seed decides which cases are drawn, and how each is
            corrupted.
        dataset: The data set that the rows come from.
        rows: int64, the rows to choose from; of a case with several, the first is taken.
        cases: How many labelled cases at most.
    """
    labelled = rows[dataset.table["eczema"].notna().to_numpy()[rows]]
    if not labelled.size:
        return {}
    chosen = dataset.take(draw_cases(dataset, labelled, cases, trained.config.seed))
    with tempfile.TemporaryDirectory() as folder:
        aside = trained.with_cache(folder)
        inputs = load_model_inputs(aside, chosen)
        found: dict[str, StressedCases] = {}
        for modality in MODALITIES:
            if modality == "image" and chosen.embeddings is not None:
                say("robustness: the photos are given as embeddings, so only texts are corrupted")
            elif (having := np.flatnonzero(inputs.present(modality))).size:
                own = chosen.take(having), inputs.pair(having, having, having)
                found |= _predict_corruptions(aside, *own, modality)
    return found


def _predict_corruptions(
    trained: TrainedModel, dataset: Dataset, inputs: Inputs, modality: str
) -> Stressed:
    """Answers rows as they are, and with each kind of corruption at each of its strengths."""
    things, what, seed = list(dataset.table["text"]), "texts", trained.config.seed
    kinds: Mapping[str, Corruption[Any]] = TEXT_CORRUPTIONS
    put: Callable[[TrainedModel, Sequence[Any], Inputs], Inputs] = _put_texts
    if modality == "image":  # as clients send them, before preprocessing
        upright = [read_upright(Path(file)) for file in dataset.table["image_file"]]
        things = [shrink(Image.open(io.BytesIO(jpeg))) for jpeg in upright]
        what, kinds, put = "photos", PHOTO_CORRUPTIONS, _put_photos
    kinds = {AS_IS: Corruption(lambda thing, *_: thing, (0.0,)), **kinds}
    answers: dict[str, dict[float, pd.DataFrame]] = {}
    for name, corruption in track(kinds.items(), f"corrupted {what}", len(kinds), slow=True):
        corrupted = [
            corruption.apply(thing, strength, np.random.default_rng([seed, place, *name.encode()]))
            for strength in corruption.strengths
            for place, thing in enumerate(things)
        ]
        again = np.arange(len(corrupted)) % len(inputs)
        versions = put(trained, corrupted, inputs.pair(again, again, again))
        predicted = predict_versions(trained, dataset, versions, len(corruption.strengths))
        answers[name] = dict(zip(corruption.strengths, predicted, strict=True))
    whole = answers.pop(AS_IS)
    return {name: StressedCases(modality, whole | found) for name, found in answers.items()}


def _put_photos(trained: TrainedModel, photos: Sequence[Image.Image], inputs: Inputs) -> Inputs:
    """Replaces the photos of rows with others, one per row."""
    config, size_px = trained.config.preprocess, trained.encoders.image.size_px
    files = [encode_image(photo, "PNG", compress_level=1) for photo in photos]
    read = tf.data.Dataset.from_tensor_slices(files).map(
        partial(preprocess_photo, size_px=size_px, config=config),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    pixels = np.stack(list(read.as_numpy_iterator()))  # (rows, height, width, 3)
    column = Column(pixels, np.arange(len(pixels)), fingerprint(pixels))
    return replace(inputs, columns={**inputs.columns, IMAGE: column})


def _put_texts(trained: TrainedModel, texts: Sequence[str], inputs: Inputs) -> Inputs:
    """Replaces the texts of rows with others, one per row."""
    read = read_texts(texts, trained.tokenizer)
    return replace(read, columns={**inputs.columns, **read.columns})
