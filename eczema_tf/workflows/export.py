"""A trained model to a SavedModel, compared with Keras before it is put in place."""

import io
from collections.abc import Set
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from eczema_tf import __version__
from eczema_tf.data.photo.upright import upright_jpeg
from eczema_tf.data.synthetic.cases import draw_case
from eczema_tf.data.synthetic.photo import render_photo
from eczema_tf.errors import RunError
from eczema_tf.explanation.heatmaps import compute_heatmaps
from eczema_tf.explanation.one_pass import explain_in_one_pass
from eczema_tf.explanation.submodels import Submodels
from eczema_tf.explanation.token_scores import multiply_gradient_by_input
from eczema_tf.files import adding_version, write_checksums
from eczema_tf.model.losses import compute_probabilities
from eczema_tf.reporting.facts import Environment, RunData
from eczema_tf.schema import CONSISTENCY, MODALITIES, NOTICE, SEVERITY
from eczema_tf.serving.exported import ExportedModel, ExportMetadata
from eczema_tf.serving.graph.served_model import ServedModel, save_served
from eczema_tf.serving.graph.signature import EXPLAIN, SERVE
from eczema_tf.serving.graph.warmup import write_warmup
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.inference import build_client_inputs
from eczema_tf.workflows.run_folder import TrainedModel

PARITY_TOLERANCE = 1e-4  # largest difference of a logit, probability, map or token score
PARITY_ROWS = 24
PARITY_SEED = 2026
LARGE_PX = (4000, 3000)  # a phone's photo, which the graph decodes at a fraction of its size


def export(run_dir: Path, out: Path) -> Path:
    """Exports a finished run, which needs nothing but its folder; see `export_model`."""
    version = export_model(run_folder.load_model(run_dir), run_dir, out)
    print(NOTICE)
    return version


def export_model(trained: TrainedModel, run_dir: Path, out: Path) -> Path:
    """Exports a model as the next version under `out`, and prints how near it is to Keras.

    Args:
        trained: The model.
        run_dir: Of the model.
        out: Folder of all versions; the new one is `out/<integer>`.

    Returns:
        The version's folder.

    Raises:
        RunError: If the SavedModel and Keras differ by more than `PARITY_TOLERANCE`; nothing is
            left behind then.
    """
    trained_on = frozenset(RunData.read(run_dir / run_folder.DATA).trained_on or ())
    served = ServedModel(
        model=trained.model,
        image_encoder=trained.encoders.image,
        tokenizer=trained.tokenizer,
        preprocess=trained.config.preprocess,
        trained_on=trained_on,
        explainer=partial(explain_in_one_pass, Submodels(trained.model)),
    )
    metadata = ExportMetadata(
        notice=NOTICE,
        eczema_tf=__version__,
        thresholds=run_folder.read_thresholds(run_dir),
        labels={"consistency": CONSISTENCY, "severity": SEVERITY},
        environment=Environment.read(run_dir / run_folder.ENVIRONMENT).model_dump(),
    )
    with adding_version(out) as version:
        save_served(served, version.folder)
        metadata.write(version.folder)
        write_warmup(version.folder, served.signatures())
        largest = check_parity(ExportedModel(version.folder), trained, trained_on)
        write_checksums(version.folder, [path.name for path in version.folder.iterdir()])
    print(
        f"exported to {out / str(version.number)} (largest difference from Keras: {largest:.1e},"
        f" allowed: {PARITY_TOLERANCE:.0e})"
    )
    return out / str(version.number)


def check_parity(exported: ExportedModel, trained: TrainedModel, trained_on: Set[str]) -> float:
    """Compares both signatures of a SavedModel with Keras and the offline explanations.

    The rows are drawn here, no patient's, and go the way that clients' rows go.

    Args:
        exported: The SavedModel.
        trained: The model in Keras.
        trained_on: Modalities that the model was trained on; it ignores others.

    Returns:
        The largest difference of a probability, heatmap or token score.

    Raises:
        RunError: If it is more than `PARITY_TOLERANCE`, with the output, the row and the stage.
    """
    photos, texts = draw_rows(PARITY_ROWS)
    sees_photos = "image" in trained_on and trained.encoders.image.kind != "precomputed"
    inputs = build_client_inputs(
        trained,
        photos if sees_photos else [b""] * len(photos),
        texts if "text" in trained_on else [""] * len(texts),
    )
    expected = dict(compute_probabilities(trained.model.predict_on_batch(inputs)))
    expected |= {f"{modality}_used": inputs[f"{modality}_present"] for modality in MODALITIES}
    submodels = Submodels(trained.model)
    explained = expected | {"token_score": multiply_gradient_by_input(submodels, inputs).scores}
    if submodels.has_feature_map:
        explained["heatmap"] = compute_heatmaps(submodels, inputs)
    largest = 0.0
    for signature, outputs in ((SERVE, expected), (EXPLAIN, explained)):
        answers = exported.run(photos, texts, signature)
        for name, value in outputs.items():
            differences = compute_differences(answers[name], np.asarray(value))
            largest = max(largest, float(differences.max()))
            if not largest <= PARITY_TOLERANCE:
                row = int(differences.argmax())
                raise RunError(
                    f"the exported model differs from Keras: {signature}, {name}, row {row}"
                    f" ({len(photos[row])} bytes of photo, {len(texts[row])} characters; status"
                    f" {answers['status'][row].decode()!r}): {differences[row]:.2e} where"
                    f" {PARITY_TOLERANCE:.0e} is allowed; nothing was exported"
                )
    return largest


def draw_rows(count: int) -> tuple[list[bytes], list[str]]:
    """Draws built-in cases as clients send them, the first photo as large as a phone's.

    Every third row has no photo, every fourth of the others no text.
    """
    photos, texts = [], []
    for index in range(count):
        case, rng = draw_case(PARITY_SEED, index), np.random.default_rng([PARITY_SEED, index])
        pixels, _ = render_photo(case.attributes, case.skin_tone, case.body_site, rng)
        photo, jpeg = Image.fromarray(pixels), io.BytesIO()
        (photo.resize(LARGE_PX) if index == 0 else photo).save(jpeg, "JPEG", quality=90)
        photos.append(b"" if index % 3 == 1 else upright_jpeg(jpeg.getvalue()))
        texts.append("" if index % 3 != 1 and index % 4 == 2 else case.text or "it itches")
    return photos, texts


def compute_differences(answer: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The largest difference of each row; the shorter side's tokens are padded with zeros."""
    widest = [max(sizes) for sizes in zip(answer.shape, expected.shape, strict=True)]
    sides = [
        np.pad(
            side.astype("float64"),
            [(0, wide - size) for wide, size in zip(widest, side.shape, strict=True)],
        )
        for side in (answer, expected)
    ]
    return np.abs(sides[0] - sides[1]).reshape(len(answer), -1).max(axis=1)
