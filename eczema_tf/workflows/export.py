"""A trained model to a SavedModel, compared with Keras before it is put in place."""

from functools import partial
from pathlib import Path

import numpy as np

from eczema_tf import __version__
from eczema_tf.data.dataset import Dataset, load_dataset
from eczema_tf.data.inputs import Inputs
from eczema_tf.errors import RunError
from eczema_tf.explanation.heatmaps import compute_heatmaps
from eczema_tf.explanation.one_pass import explain_in_one_pass
from eczema_tf.explanation.submodels import Submodels, to_tensors
from eczema_tf.explanation.token_scores import multiply_gradient_by_input
from eczema_tf.files import adding_version, write_checksums
from eczema_tf.model.losses import compute_probabilities
from eczema_tf.reporting.facts import Environment, RunData
from eczema_tf.schema import CONSISTENCY, IMAGE_PRESENT, NOTICE, SEVERITY, TEXT_PRESENT
from eczema_tf.serving.exported import ExportedModel, ExportMetadata
from eczema_tf.serving.graph.served_model import ServedModel, save_served
from eczema_tf.serving.graph.signature import EXPLAIN, SERVE
from eczema_tf.serving.graph.warmup import write_warmup
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.inference import load_model_inputs
from eczema_tf.workflows.run_folder import TrainedModel

# largest difference of a probability, heatmap or token score between the SavedModel and Keras
PARITY_TOLERANCE = 1e-4
PARITY_ROWS = 24


def export(run_dir: Path, out: Path) -> Path:
    """Exports a finished run; see `export_model`."""
    trained = run_folder.load_model(run_dir)
    dataset = load_dataset(trained.config.data, RunData.read(run_dir / run_folder.DATA).manifest)
    inputs = load_model_inputs(trained, dataset)
    version = export_model(trained, dataset, inputs, run_dir=run_dir, out=out)
    print(NOTICE)
    return version


def export_model(
    trained: TrainedModel, dataset: Dataset, inputs: Inputs, *, run_dir: Path, out: Path
) -> Path:
    """Exports a model as the next version under `out`, and prints how near it is to Keras.

    Args:
        trained: The model.
        dataset: Where the rows that are compared come from.
        inputs: Of the data set, for the model.
        run_dir: Of the model.
        out: Folder of all versions; the new one is `out/<integer>`.

    Returns:
        The version's folder.

    Raises:
        RunError: If the SavedModel and Keras differ by more than `PARITY_TOLERANCE`; nothing is
            left behind then.
    """
    submodels = Submodels(trained.model)
    served = ServedModel(
        model=trained.model,
        image_encoder=trained.encoders.image,
        tokenizer=trained.tokenizer,
        preprocess=trained.config.preprocess,
        trained_on=frozenset(RunData.read(run_dir / run_folder.DATA).trained_on or ()),
        explainer=partial(explain_in_one_pass, submodels),
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
        difference = check_parity(version.folder, trained, dataset, inputs)
        write_checksums(version.folder, [path.name for path in version.folder.iterdir()])
    exported = out / str(version.number)
    print(
        f"exported to {exported} (largest difference from Keras: {difference:.1e}, allowed:"
        f" {PARITY_TOLERANCE:.0e})"
    )
    return exported


def check_parity(folder: Path, trained: TrainedModel, dataset: Dataset, inputs: Inputs) -> float:
    """Compares both signatures of a SavedModel with Keras and with the offline explanations.

    Args:
        folder: Of the SavedModel.
        trained: The model in Keras.
        dataset: Where rows come from; one modality is taken away from some of them.
        inputs: Of the data set, for the model.

    Returns:
        The largest difference of any probability, heatmap or token score.

    Raises:
        RunError: If it is more than `PARITY_TOLERANCE`, or the SavedModel refuses a photo that
            training accepted.
    """
    photos, texts, batch = _choose_rows(trained, dataset, inputs)
    submodels = Submodels(trained.model)
    expected = dict(compute_probabilities(trained.model.predict_on_batch(batch)))
    explained = expected | {"token_score": multiply_gradient_by_input(submodels, batch).scores}
    if submodels.has_feature_map:
        explained["heatmap"] = compute_heatmaps(submodels, batch)
    exported, largest = ExportedModel(folder), 0.0
    for signature, outputs in ((SERVE, expected), (EXPLAIN, explained)):
        answers = exported.run(photos, texts, signature)
        for name, value in outputs.items():
            largest = max(largest, _largest_difference(answers[name], np.asarray(value)))
    if not largest <= PARITY_TOLERANCE:
        raise RunError(
            f"the exported model differs from Keras by {largest:.2e} where"
            f" {PARITY_TOLERANCE:.0e} is allowed; nothing was exported"
        )
    return largest


def _choose_rows(
    trained: TrainedModel, dataset: Dataset, inputs: Inputs
) -> tuple[list[bytes], list[str], dict[str, np.ndarray]]:
    """Rows as clients send them, and the same rows from the training pipeline.

    They are spread over the data set; upright photos only, since clients turn photos before they
    send them. Every third row loses its photo, every fourth its text.
    """
    turned = set(dataset.photos.index[dataset.photos["orientation"] != 1])
    table = dataset.table[~dataset.table["image_file"].isin(turned)]
    table = table.iloc[:: max(len(table) // PARITY_ROWS, 1)].head(PARITY_ROWS)
    batch = inputs.gather(table.index.to_numpy())
    texts = list(table["text"])
    if trained.encoders.image.kind == "precomputed":  # the served graph has no embeddings
        photos = [b""] * len(table)
        batch[IMAGE_PRESENT][:] = 0
    else:
        photos = [Path(file).read_bytes() if file else b"" for file in table["image_file"]]
    for row in range(len(table)):
        if row % 3 == 1 and texts[row]:
            photos[row], batch[IMAGE_PRESENT][row] = b"", 0
        elif row % 4 == 2 and photos[row]:
            texts[row], batch[TEXT_PRESENT][row] = "", 0
    return photos, texts, {name: value.numpy() for name, value in to_tensors(batch).items()}


def _largest_difference(answer: np.ndarray, expected: np.ndarray) -> float:
    """Tokens are padded to the longest text of a batch: the shorter side is padded with zeros."""
    widest = [max(sizes) for sizes in zip(answer.shape, expected.shape, strict=True)]
    sides = [
        np.pad(side, [(0, wide - size) for wide, size in zip(widest, side.shape, strict=True)])
        for side in (answer, expected)
    ]
    return float(np.abs(sides[0] - sides[1]).max())
