"""Release of a run: a SavedModel for TensorFlow Serving, checked against Keras before it is put in place."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from eczema_tf import __version__
from eczema_tf.data.dataset import Dataset, load_dataset
from eczema_tf.errors import RunError
from eczema_tf.explanation.heatmaps import compute_heatmaps
from eczema_tf.explanation.one_pass import explain_in_one_pass
from eczema_tf.explanation.submodels import Submodels
from eczema_tf.explanation.token_scores import multiply_gradient_by_input
from eczema_tf.files import replacing_folder
from eczema_tf.model.losses import compute_probabilities
from eczema_tf.schema import CONSISTENCY, IMAGE_PRESENT, NOTICE, SEVERITY, TEXT_PRESENT
from eczema_tf.serving.exported import ExportedModel, ExportMetadata, list_versions
from eczema_tf.serving.graph.served_model import ServedModel, save_served
from eczema_tf.serving.graph.signature import EXPLAIN, SERVE
from eczema_tf.serving.graph.warmup import write_warmup
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.inference import load_model_inputs

# largest difference of a probability, heatmap or token score between the SavedModel and Keras
PARITY_TOLERANCE = 1e-4
PARITY_ROWS = 24

Inputs = dict[str, np.ndarray]  # by name, as the model takes them


def export_run(run_dir: Path, out: Path) -> tuple[Path, float]:
    """Exports a run as the next version under `out`.

    Args:
        run_dir: Of a finished run.
        out: Folder of all versions; the new one is `out/<integer>`.

    Returns:
        The version's folder and the largest difference of any probability or explanation between
        SavedModel and Keras.

    Raises:
        RunError: If the SavedModel and Keras differ by more than `PARITY_TOLERANCE`; nothing is
            left behind then.
    """
    trained = run_folder.load_model(run_dir)
    description = run_folder.read_json(run_dir / run_folder.DATA)
    dataset = load_dataset(trained.config.data, description["manifest"])
    cut = Submodels(trained.model)
    served = ServedModel(
        trained.model,
        trained.encoders.image,
        trained.tokenizer,
        trained.config.preprocess,
        frozenset(description["trained_on"]),
        partial(explain_in_one_pass, cut),
    )
    version = out / str(next_version(out))
    with replacing_folder(version) as aside:
        save_served(served, aside)
        _describe_export(run_dir).write(aside)
        write_warmup(aside, served.signatures())
        difference = check_parity(aside, trained, dataset)
    return version, difference


def next_version(out: Path) -> int:
    """Returns one more than the highest numbered folder, or 1."""
    return max((int(version.name) for version in list_versions(out)), default=0) + 1


def _describe_export(run_dir: Path) -> ExportMetadata:
    return ExportMetadata(
        notice=NOTICE,
        eczema_tf=__version__,
        thresholds=run_folder.read_json(run_dir / run_folder.THRESHOLDS),
        labels={"consistency": CONSISTENCY, "severity": SEVERITY},
        environment=run_folder.read_json(run_dir / run_folder.ENVIRONMENT),
    )


def check_parity(folder: Path, trained: run_folder.TrainedModel, dataset: Dataset) -> float:
    """Compares both signatures of a SavedModel with Keras and with the offline explanations, on rows of the data set.

    Args:
        folder: Of the SavedModel.
        trained: From `run_folder.load_model`.
        dataset: Where the rows come from; some of them without photo, some without text.

    Returns:
        The largest difference of any probability, heatmap or token score.

    Raises:
        RunError: If it is more than `PARITY_TOLERANCE`, or the SavedModel refuses a photo that
            training accepted.
    """
    photos, texts, inputs = _parity_rows(trained, dataset)
    probabilities = compute_probabilities(trained.model.predict_on_batch(inputs))
    explanations = _explain_offline(trained, inputs)
    exported = ExportedModel(folder)
    differences = []
    for signature, expected in (
        (SERVE, probabilities),
        (EXPLAIN, {**probabilities, **explanations}),
    ):
        answers = exported.run(photos, texts, signature)
        differences += [
            _largest_difference(answers[name], np.asarray(value))
            for name, value in expected.items()
        ]
    difference = max(differences)
    if not difference <= PARITY_TOLERANCE:
        raise RunError(
            f"the exported model differs from Keras by {difference:.2e} where"
            f" {PARITY_TOLERANCE:.0e} is allowed; nothing was exported"
        )
    return difference


def _parity_rows(
    trained: run_folder.TrainedModel, dataset: Dataset
) -> tuple[list[bytes], list[str], Inputs]:
    """Rows as they would be sent, and the same rows from the training pipeline."""
    table = _choose_parity_rows(dataset)
    rows = table.index.to_numpy()
    texts = list(table["text"])
    inputs = load_model_inputs(trained, dataset).gather(rows)
    if (
        trained.encoders.image.kind == "precomputed"
    ):  # the served graph has no embeddings: compare on the texts
        photos = [b""] * len(rows)
        inputs[IMAGE_PRESENT][:] = 0
    else:
        photos = [Path(file).read_bytes() if file else b"" for file in table["image_file"]]
    for place in range(
        len(rows)
    ):  # take one modality away from every third and the other from every fourth row
        if place % 3 == 1 and texts[place]:
            photos[place], inputs[IMAGE_PRESENT][place] = b"", 0
        elif place % 4 == 2 and photos[place]:
            texts[place], inputs[TEXT_PRESENT][place] = "", 0
    return (
        photos,
        texts,
        {name: np.asarray(value, _input_type(value)) for name, value in inputs.items()},
    )


def _explain_offline(trained: run_folder.TrainedModel, inputs: Inputs) -> Inputs:
    """What the signature `explain` should give: tf-keras-vis' Layer-CAM, and gradient x input."""
    cut = Submodels(trained.model)
    explanations = {"token_score": multiply_gradient_by_input(cut, inputs).scores}
    return explanations | (
        {"heatmap": compute_heatmaps(cut, inputs)} if cut.has_feature_map else {}
    )


def _largest_difference(answer: np.ndarray, expected: np.ndarray) -> float:
    """Tokens are padded to the longest text of a batch, which may be one that was taken away: the shorter side is padded with zeros."""
    widest = [max(sizes) for sizes in zip(answer.shape, expected.shape, strict=True)]
    padded = [
        np.pad(side, [(0, wide - size) for wide, size in zip(widest, side.shape, strict=True)])
        for side in (answer, expected)
    ]
    return float(np.abs(padded[0] - padded[1]).max())


def _choose_parity_rows(dataset: Dataset) -> pd.DataFrame:
    """Spread over the data set; upright photos only, since turning is done before a photo is sent."""
    turned = set(dataset.photos.index[dataset.photos["orientation"] != 1])
    table = dataset.table[~dataset.table["image_file"].isin(turned)]
    step = max(len(table) // PARITY_ROWS, 1)
    return table.iloc[::step].head(PARITY_ROWS)


def _input_type(value: np.ndarray) -> str:
    return "int32" if np.issubdtype(value.dtype, np.signedinteger) else "float32"
