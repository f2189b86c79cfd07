"""Checks that an exported model answers as Keras does, from clients' rows to explanations."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from eczema_tf.cli import say
from eczema_tf.data.clinical.fields import Field
from eczema_tf.data.clinical.lines import join_fields
from eczema_tf.data.inputs import to_model_inputs
from eczema_tf.data.memory import give_memory_back
from eczema_tf.data.photo.files import encode_image
from eczema_tf.data.photo.upright import upright_jpeg
from eczema_tf.data.synthetic.cases import draw_case
from eczema_tf.data.synthetic.photo import render_photo
from eczema_tf.data.text.reading import is_read
from eczema_tf.errors import RunError
from eczema_tf.explanation.one_pass import explain_in_one_pass
from eczema_tf.explanation.spans import INCOMPLETE
from eczema_tf.explanation.submodels import Submodels
from eczema_tf.explanation.token_scores import NODES
from eczema_tf.model.features import build_predictor
from eczema_tf.schema import CLINICAL, IMAGE, IMAGE_PRESENT, PADDING_MASK, TEXT_PRESENT, TOKEN_IDS
from eczema_tf.serving.exported import ExportedModel
from eczema_tf.serving.graph.served_model import ServedModel
from eczema_tf.serving.graph.signature import SIGNATURES, WITH_CLINICAL
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.inference import build_client_inputs, read_answers

PARITY_ROWS = 24
# for all rows at once, gradients through both encoders would take gigabytes
PARITY_BATCHES = [slice(first, first + 4) for first in range(0, PARITY_ROWS, 4)]
PARITY_SEED = 2026
TOLERANCE = 1e-4  # for what `Parity` measures
# Explanations are gradients, and those of a ReLU or a maximum jump where rounding decides on which
# side a unit is. So a few rows may differ by as much as one unit of a head can change.
KINK_ROWS, KINK_TOLERANCE = 6, 5e-2
# If word scores miss fewer logits per text than NEGLIGIBLE, that is ignored, whatever their share:
# a model that hardly moves misses that much at its kinks. Beyond that and `INCOMPLETE`, there is a
# warning. A correctly computed path integral never misses a tenth (or a tenth of a logit per text):
# that is an error.
NEGLIGIBLE, WRONG = 0.01, 0.1
STAGES = {  # what computes a model's input, or an output of the SavedModel
    IMAGE: "decoding and preprocessing of the photo",
    IMAGE_PRESENT: "decoding of the photo",
    TOKEN_IDS: "cleaning and tokenisation of the text",
    PADDING_MASK: "cleaning and tokenisation of the text",
    TEXT_PRESENT: "cleaning of the text",
    CLINICAL: "clinical fields",
    "eczema_image": "features of the photo, or their head",
    "eczema_text": "features of the text, or their head",
    "eczema": "fusion",
    "consistency": "head of the text",
    "severity": "head of the fusion",
    "known_image": "distance of the photo from training",
    "known_text": "distance of the text from training",
    "decision": "bounds of the decision",
    "contribution": "contributions of photo and text",
    "token_score": "gradient to the words",
    "heatmap": "gradient to the map of the photo",
    "heatmap_scale": "evidence in the photo",
}
LARGE_PX = (4000, 3000)  # a phone's photo, which the graph decodes at a fraction of its size


class Parity(NamedTuple):
    """The largest differences between a SavedModel and Keras.

    Attributes:
        probability: Difference of a probability, or of anything else that is neither a heatmap nor
            a word's score.
        heatmap: Difference of one place of a heatmap, as a share of its scale.
        token_score: Difference of a token's score, in logits.
    """

    probability: float
    heatmap: float
    token_score: float

    def __str__(self) -> str:
        return (
            f"probabilities {self.probability:.1e}, maps {self.heatmap:.1e},"
            f" words {self.token_score:.1e} logits"
        )


def check_parity(
    folder: Path, served: ServedModel, trained: run_folder.TrainedModel, run_dir: Path
) -> Parity:
    """Compares a SavedModel with Keras, in the order of computation.

    The rows are drawn here, are no patient's, and take the same way as clients' rows.

    Args:
        folder: The SavedModel's folder.
        served: What it was made of.
        trained: The model in Keras.
        run_dir: The model's run folder.

    Raises:
        RunError: If they differ; the message names the first output that does, the row and the
            stage. Also if word scores do not add up to what their texts moved.
    """
    photos, texts = draw_rows(PARITY_ROWS)
    clinical = draw_fields(trained.encoders.clinical, PARITY_ROWS)
    inputs = build_client_inputs(
        trained,
        photos if served.uses_photos else [b""] * len(photos),
        texts if served.uses_texts else [""] * len(texts),
        clinical,
    )
    asked = [tf.constant(column) for column in (photos, texts, clinical) if column is not None]
    read, report, _ = tf.function(served.read, autograph=False)(*asked)
    differences = {
        name: compute_differences(read[name].numpy(), value) for name, value in inputs.items()
    }
    submodels = run_folder.take_apart(run_dir, trained)
    text_read = is_read(report["status"]).numpy()
    answers = answer_in_keras(trained, submodels, inputs, text_read)
    check_completeness(answers)
    give_memory_back()  # before the SavedModel takes as much
    differences |= compare_answers(ExportedModel(folder), photos, texts, answers, clinical)
    for name, rows in differences.items():
        strict = len(rows) - (KINK_ROWS if name in Parity._fields else 0)
        if not (rows.max() <= KINK_TOLERANCE and np.sort(rows)[:strict].max() <= TOLERANCE):
            row = int(rows.argmax())
            raise RunError(
                f"the exported model differs from Keras: {name} ({STAGES[name]}), row {row}"
                f" ({len(photos[row])} bytes of photo, {len(texts[row])} characters; status"
                f" {report['status'][row].numpy().decode()!r}): {rows[row]:.2e} where"
                f" {TOLERANCE:.0e} is allowed; nothing was exported"
            )
    largest = {name: float(rows.max()) for name, rows in differences.items()}
    explained = {name: largest.pop(name) for name in Parity._fields[1:]}
    return Parity(probability=max(largest.values()), **explained)


def answer_in_keras(
    trained: run_folder.TrainedModel,
    submodels: Submodels,
    inputs: Mapping[str, np.ndarray],
    text_read: np.ndarray,
) -> list[dict[str, np.ndarray]]:
    """Returns what the SavedModel has to answer, by `PARITY_BATCHES`."""
    predict, answers = build_predictor(trained.model), []
    explain = tf.function(
        partial(explain_in_one_pass, submodels), reduce_retracing=True, autograph=False
    )
    for rows in PARITY_BATCHES:
        batch = {name: value[rows] for name, value in inputs.items()}
        why = explain(to_model_inputs(batch))
        answers.append(
            {
                **read_answers(predict([batch]), batch, text_read[rows]),
                "heatmap": why.heatmap.numpy(),
                "token_score": why.token_scores.numpy(),
                "contribution": why.contributions.numpy(),
                "heatmap_scale": why.heatmap_scale.numpy(),
            }
        )
    return answers


def check_completeness(answers: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Compares the sums of word scores with what the texts moved; warns if they miss some of it.

    Raises:
        RunError: If they miss more than `WRONG` of it, and more than `WRONG` logits per text.
    """
    moved = np.concatenate([answer["contribution"][:, 2] for answer in answers])
    sums = np.concatenate([answer["token_score"].sum(axis=1) for answer in answers])
    missed, whole = np.abs(sums - moved).sum(), np.abs(moved).sum()
    if missed <= max(INCOMPLETE * whole, NEGLIGIBLE * len(moved)):
        return
    fault = (
        f"the word scores miss {missed:.3f} of the {whole:.3f} logits that {len(moved)} texts"
        f" moved, with {NODES} nodes"
    )
    if not missed <= WRONG * max(whole, len(moved)):
        raise RunError(f"{fault}, more than {WRONG:.0%}: nothing was exported")
    say(f"{fault}, more than {INCOMPLETE:.0%}: trust them accordingly less")


def compare_answers(
    exported: ExportedModel,
    photos: Sequence[bytes],
    texts: Sequence[str],
    answers: Sequence[dict[str, np.ndarray]],
    clinical: Sequence[str] | None,
) -> dict[str, np.ndarray]:
    """Returns the largest difference of each row, by name of the output; see `Parity`.

    For a model with clinical fields, only the signatures with them are compared: the others call
    these.
    """
    differences = defaultdict(list)
    for rows, expected in zip(PARITY_BATCHES, answers, strict=True):
        for signature in SIGNATURES if clinical is None else WITH_CLINICAL.values():
            told = None if clinical is None else clinical[rows]
            answer = exported.run(photos[rows], texts[rows], signature, told)
            for name, value in expected.items():
                if name in answer:
                    differences[name, signature].append(compute_differences(answer[name], value))
    merged: dict[str, np.ndarray] = {}
    for (name, _), batches in differences.items():
        together = np.concatenate(batches)
        merged[name] = np.maximum(merged.get(name, together), together)
    return merged


@cache  # for several exports in one process; drawing takes three seconds
def draw_rows(count: int) -> tuple[list[bytes], list[str]]:
    """Draws built-in cases as clients send them, the first photo as large as a phone's.

    Every third row has no photo, and every fourth of the others has no text.
    """
    photos, texts = [], []
    for index in range(count):
        case, rng = draw_case(PARITY_SEED, index), np.random.default_rng([PARITY_SEED, index])
        pixels, _ = render_photo(case.attributes, case.skin_tone, case.body_site, rng)
        photo = Image.fromarray(pixels)
        photo = photo.resize(LARGE_PX) if index == 0 else photo
        jpeg = encode_image(photo, "JPEG", quality=90)
        photos.append(b"" if index % 3 == 1 else upright_jpeg(jpeg))
        texts.append("" if index % 3 != 1 and index % 4 == 2 else case.text or "it itches")
    return photos, texts


def draw_fields(fields: Sequence[Field], rows: int) -> list[str] | None:
    """Draws clinical fields as clients send them, every third row without; None without fields."""
    if not fields:
        return None
    rng = np.random.default_rng(PARITY_SEED)
    lines = []
    for row in range(rows):
        drawn = {
            field.name: str(rng.choice([*field.shares]))
            if field.shares
            else f"{rng.normal(field.mean, field.deviation):.2f}"
            for field in fields
        }
        lines.append("" if row % 3 == 2 else join_fields(drawn))
    return lines


def compute_differences(answer: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Returns the largest difference of each row; the shorter side's tokens are zero-padded.

    Strings differ by 1 or not at all.
    """
    answer, expected = np.asarray(answer), np.asarray(expected)
    if answer.dtype == object:
        return (answer != expected).astype("float64")
    widest = [max(sizes) for sizes in zip(answer.shape, expected.shape, strict=True)]
    sides = [
        np.pad(
            side.astype("float64"),
            [(0, wide - size) for wide, size in zip(widest, side.shape, strict=True)],
        )
        for side in (answer, expected)
    ]
    return np.abs(sides[0] - sides[1]).reshape(len(answer), -1).max(axis=1)
