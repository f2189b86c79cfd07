"""A finished run whose model is kept and extended with other data: `train.base_run`."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from eczema_tf.cli import say
from eczema_tf.config import Config
from eczema_tf.data.audit.overlap import Seen
from eczema_tf.data.clinical.fields import Field
from eczema_tf.data.dataset import Dataset
from eczema_tf.data.text.reading import choose_unknown_limit
from eczema_tf.errors import ConfigError, raise_if_any
from eczema_tf.model.multimodal import build_model
from eczema_tf.reporting.facts import RunData
from eczema_tf.training.own_evidence import take_over
from eczema_tf.workflows import run_folder


class BaseRun(NamedTuple):
    """What is kept of a run."""

    trained: run_folder.TrainedModel
    data: RunData


def load_base(config: Config) -> BaseRun | None:
    """Loads the run that `train.base_run` names, if it names one.

    Raises:
        RunError: If it is not a finished run.
        ConfigError: If its model is not the configuration's, or sees other photos.
    """
    if config.train.base_run is None:
        return None
    folder = Path(config.train.base_run)
    trained, data = run_folder.load_model(folder), RunData.read(folder / run_folder.DATA)
    faults = _compare(config, trained.config)
    raise_if_any(f"train.base_run: {folder} is kept as it is, but differs", faults, ConfigError)
    return BaseRun(trained, data)


def _compare(config: Config, kept: Config) -> list[str]:
    """Lists the settings that must be the same as the run's but are not."""
    sections = {
        "model": (config.model.model_dump(), kept.model.model_dump()),
        "preprocess": (
            config.preprocess.model_dump(exclude={"augment"}),
            kept.preprocess.model_dump(),
        ),
    }
    faults = [
        f"{section}.{key}: is {value!r} here and {before[key]!r} there"
        for section, (values, before) in sections.items()
        for key, value in values.items()
        if before[key] != value
    ]
    if bool(kept.data.embeddings) != bool(config.data.embeddings):
        faults.append(
            "data.embeddings: one of the two runs uses embeddings and the other does not; here it"
            f" is {config.data.embeddings!r}"
        )
    return faults


def build_on(
    base: BaseRun, config: Config, texts: list[str], clinical: tuple[Field, ...]
) -> run_folder.TrainedModel:
    """Builds a model that answers as the base's does until something is added to it."""
    told = {field.name for field in clinical}
    if left_out := [f.name for f in base.trained.encoders.clinical if f.name not in told]:
        say(
            f"note: train.base_run: {', '.join(left_out)} is used there but not here, since"
            " data.clinical does not name it"
        )
    encoders = replace(base.trained.encoders, widened=True, clinical=clinical)
    model, tokenizer = build_model(config.model, encoders), base.trained.tokenizer
    take_over(model, base.trained.model)
    tokenizer.unknown_limit = choose_unknown_limit(tokenizer, texts)
    return run_folder.TrainedModel(config, encoders, tokenizer, model, base.trained.learned_from)


def check_base(base: BaseRun, dataset: Dataset) -> None:
    """Checks that a base run answers the same question as these data, from the same embeddings.

    Raises:
        DataError: If it does not.
    """
    asked, known = dataset.positive_class, base.data.positive_class
    faults = [f"they ask for {asked}, but train.base_run for {known}"] if asked != known else []
    found, expected = dataset.embeddings, base.trained.encoders.image.dimension
    if found is not None and found.dimension != expected:
        faults.append(
            f"their embeddings have {found.dimension} values, but those of train.base_run have"
            f" {expected}: give embeddings from the same network"
        )
    raise_if_any("these data cannot extend this base run", faults)


def list_seen_by_base(config: Config) -> list[Seen | None]:
    """Lists what the run named by `train.base_run` has seen; nothing if none is named."""
    folder = config.train.base_run
    return list_seen(RunData.read(Path(folder) / run_folder.DATA)) if folder else []


def list_seen(data: RunData) -> list[Seen | None]:
    """Lists what a run has seen, and what the runs that it builds on have seen."""
    return [one.seen for one in data.lineage]
