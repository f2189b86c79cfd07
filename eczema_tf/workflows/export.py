"""Exports a trained model as a SavedModel, compared with Keras before it is put in place."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path

from eczema_tf import __version__
from eczema_tf.data.cache import release_maps
from eczema_tf.data.checksums import write_checksums
from eczema_tf.data.clinical.fields import list_values
from eczema_tf.data.memory import give_memory_back
from eczema_tf.errors import RunError
from eczema_tf.explanation.one_pass import explain_in_one_pass
from eczema_tf.files import adding_version, replacing_folder
from eczema_tf.reporting.facts import Environment, RunData
from eczema_tf.schema import CONSISTENCY, SEVERITY
from eczema_tf.serving.exported import FILES, ExportMetadata
from eczema_tf.serving.graph.served_model import ServedModel, save_served
from eczema_tf.serving.graph.signature import list_signatures
from eczema_tf.serving.graph.warmup import write_warmup
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.hub import fill_hub_folder
from eczema_tf.workflows.inference import read_undecided
from eczema_tf.workflows.parity import check_parity


def export(run_dir: Path, out: Path, hub_folder: Path | None = None) -> Path:
    """Exports a finished run, which needs only its folder; see `export_model`.

    Args:
        run_dir: Folder of the run.
        out: Folder of all versions.
        hub_folder: A new folder, for sharing, with all that belongs to the model; None for none.

    Raises:
        RunError: If `hub_folder` is, or is inside, the folder of all versions.
    """
    if hub_folder and hub_folder.resolve().is_relative_to(out.resolve()):
        raise RunError(f"--hub-folder {hub_folder}: {out} is only for versions; give another")
    trained = run_folder.load_model(run_dir)
    with replacing_folder(hub_folder) if hub_folder else nullcontext() as folder:
        version = export_model(trained, run_dir, out)
        if folder:
            fill_hub_folder(folder, trained, run_dir, version)
    if hub_folder:
        print(f"ready to be shared: {hub_folder}")
    print(RunData.read(run_dir / run_folder.DATA).notice)
    return version


def export_model(trained: run_folder.TrainedModel, run_dir: Path, out: Path) -> Path:
    """Exports a model as the next version under `out`, and prints how close it is to Keras.

    Args:
        trained: The model.
        run_dir: The model's run folder.
        out: Folder of all versions; the new one is `out/<integer>`.

    Returns:
        The version's folder.

    Raises:
        RunError: If the SavedModel and Keras differ; then nothing is left behind.
    """
    release_maps()
    give_memory_back()  # what training took
    served, fields = build_served(trained, run_dir), list_values(trained.encoders.clinical)
    metadata = ExportMetadata(
        notice=RunData.read(run_dir / run_folder.DATA).notice,
        eczema_tf=__version__,
        thresholds=run_folder.read_thresholds(run_dir),
        undecided=read_undecided(trained.model),
        labels={"consistency": CONSISTENCY, "severity": SEVERITY},
        clinical=fields or None,
        uses=trained.uses,
        environment=Environment.read(run_dir / run_folder.ENVIRONMENT).model_dump(),
    )
    with adding_version(out) as version:
        save_served(served, version.folder)
        give_memory_back()  # saving takes the weights ten times over
        metadata.write(version.folder)
        write_warmup(version.folder, list_signatures(bool(fields)))
        parity = check_parity(version.folder, served, trained, run_dir)
        write_checksums(version.folder, FILES)
    print(f"exported to {out / str(version.number)} (largest difference from Keras: {parity})")
    return out / str(version.number)


def build_served(trained: run_folder.TrainedModel, run_dir: Path) -> ServedModel:
    """Puts a run's model together with its preprocessing and its signatures."""
    return ServedModel(
        model=trained.model,
        image_encoder=trained.encoders.image,
        tokenizer=trained.tokenizer,
        preprocess=trained.config.preprocess,
        trained_on=trained.learned_from,
        explainer=partial(explain_in_one_pass, run_folder.take_apart(run_dir, trained)),
        clinical=trained.encoders.clinical,
    )
