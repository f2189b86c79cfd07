"""Hyperparameter search over a declared space: Optuna proposes, a trial trains on the training split and is judged on validation.

Everything of a study is in one folder: `study.log` (Optuna's journal, which makes a study
resumable), a run folder for each trial with its HParams for TensorBoard, `trials.csv` and
`best.yaml`. The test split is dropped from the data set before the first trial.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import tensorflow as tf
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from tensorboard.plugins.hparams import api as hparams

from eczema_tf.config import Config, dump_config, parse_config, read_yaml
from eczema_tf.data.dataset import Dataset
from eczema_tf.errors import ConfigError, join_faults
from eczema_tf.files import write_csv, write_text
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.audit import load_audited
from eczema_tf.workflows.fit import train_run
from eczema_tf.workflows.train import prepare_built_in, split_dataset

OBJECTIVE = "val_auroc_fusion"
JOURNAL, TRIALS, BEST = "study.log", "trials.csv", "best.yaml"


class Range(BaseModel):
    """Numbers between two bounds, both included."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    low: int | float
    high: int | float
    log: bool = False


Space = dict[str, Range | list[Any]]


@dataclass(frozen=True)
class Study:
    """What a search found: one row a finished trial, best first."""

    trials: pd.DataFrame
    folder: Path

    def describe(self) -> str:
        """Returns the best trials as a table, and where the winner's configuration is."""
        table = self.trials.head(10).to_string(
            index=False, float_format=lambda value: f"{value:.4g}"
        )
        advice = "validation figures choose, they do not prove: train it and see its test split"
        return f"{table}\nbest configuration: {self.folder / BEST} ({advice})"


def load_space(path: Path) -> Space:
    """Reads which keys to vary.

    Args:
        path: YAML lines `section.key: [choices]` or `section.key: {low, high, log}`.

    Raises:
        ConfigError: With every fault, if there is any.
    """
    space, faults = {}, []
    for key, allowed in read_yaml(path).items():
        try:
            space[key] = (
                allowed if isinstance(allowed, list) and allowed else Range.model_validate(allowed)
            )
        except ValidationError:
            faults.append(
                f"{key}: allowed: [choices] or {{low: ..., high: ..., log: true|false}}, received"
                f" {allowed!r}"
            )
    for key, allowed in space.items():
        faults += _check_values(key, allowed)
    if faults or not space:
        raise ConfigError(
            join_faults(f"{path} is not a search space", faults or ["it varies nothing"])
        )
    return space


def _check_values(key: str, allowed: Range | list[Any]) -> list[str]:
    """Every choice, and both ends of a range, must be a valid configuration by itself."""
    values = allowed if isinstance(allowed, list) else [allowed.low, allowed.high]
    faults = []
    for value in values:
        try:
            parse_config(nest({key: value}))
        except ConfigError as error:
            faults.append(" ".join(str(error).split()))
    if not isinstance(allowed, list) and not allowed.low < allowed.high:
        faults.append(
            f"{key}: low must be less than high, received {allowed.low} and {allowed.high}"
        )
    return faults


def nest(values: Mapping[str, Any], base: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Turns `{"a.b": c}` into `{"a": {"b": c}}`, on top of a copy of `base`."""
    nested = yaml.safe_load(yaml.safe_dump(dict(base or {})))  # a deep copy of plain values
    for key, value in values.items():
        *sections, last = key.split(".")
        section = nested
        for name in sections:
            section = section.setdefault(name, {})
        section[last] = value
    return nested


def search(config: Config, space: Space, trials: int, folder: Path) -> Study:
    """Runs trials until a study has enough finished ones.

    Args:
        config: What all trials share.
        space: From `load_space`.
        trials: Finished trials to reach, those of earlier calls included.
        folder: Of the study.

    Returns:
        All finished trials.

    Raises:
        ConfigError: If the folder holds a study of another space or configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _check_study(folder, config, space)
    dataset, splits = load_without_test(config)
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
    )
    study = optuna.create_study(
        study_name="study", storage=storage, load_if_exists=True, direction="maximize"
    )
    study.sampler = optuna.samplers.TPESampler(
        seed=config.seed + len(study.trials)
    )  # a resumed study must not propose the same again
    while len(_finished(study)) < trials:
        study.optimize(
            lambda trial: _run_trial(trial, config, space, dataset, splits, folder), n_trials=1
        )
    return _write_study(study, config, folder)


def load_without_test(config: Config) -> tuple[Dataset, pd.Series]:
    """Loads the data, splits it as `train` would, and drops every row of the test split."""
    audited = load_audited(config.data, config.data.manifest or prepare_built_in(config))
    dataset, splits = audited.dataset, split_dataset(config, audited.dataset)
    audited.check(splits)
    kept = (splits != "test").to_numpy()
    table = dataset.table[kept].reset_index(drop=True)
    return replace(dataset, manifest=replace(dataset.manifest, table=table)), splits[
        kept
    ].reset_index(drop=True)


def _run_trial(
    trial: optuna.Trial,
    config: Config,
    space: Space,
    dataset: Dataset,
    splits: pd.Series,
    folder: Path,
) -> float:
    chosen = {key: _suggest(trial, key, allowed) for key, allowed in space.items()}
    trial_config = parse_config(nest(chosen, config.model_dump()))
    run_dir = folder / f"trial-{trial.number:04d}"
    run_folder.write_start(run_dir, trial_config)
    *_, history = train_run(trial_config, dataset, splits, run_dir)
    score = max(epoch[OBJECTIVE] for stage in history.values() for epoch in stage)
    with tf.summary.create_file_writer(str(run_dir / "tensorboard" / "hparams")).as_default():
        hparams.hparams(chosen, trial_id=run_dir.name)
        tf.summary.scalar(OBJECTIVE, score, step=0)
    return score


def _suggest(trial: optuna.Trial, key: str, allowed: Range | list[Any]) -> Any:
    if isinstance(allowed, list):
        return trial.suggest_categorical(key, allowed)
    if isinstance(allowed.low, int) and isinstance(allowed.high, int):
        return trial.suggest_int(key, allowed.low, allowed.high, log=allowed.log)
    return trial.suggest_float(key, allowed.low, allowed.high, log=allowed.log)


def _finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(states=[optuna.trial.TrialState.COMPLETE])


def _check_study(folder: Path, config: Config, space: Space) -> None:
    """A study goes on only with what it was started with: trials of two spaces cannot be compared."""
    plain = {
        key: allowed if isinstance(allowed, list) else allowed.model_dump()
        for key, allowed in space.items()
    }
    for name, text in (
        ("config.yaml", dump_config(config)),
        ("space.yaml", yaml.safe_dump(plain, sort_keys=False)),
    ):
        file = folder / name
        if file.is_file() and file.read_text(encoding="utf-8") != text:
            raise ConfigError(
                f"{folder}: holds a study with another {name}; give another --out, or go on with"
                " that one"
            )
        write_text(file, text)


def _write_study(study: optuna.Study, config: Config, folder: Path) -> Study:
    finished = sorted(_finished(study), key=lambda trial: -trial.value)
    table = pd.DataFrame(
        [{"trial": trial.number, OBJECTIVE: trial.value, **trial.params} for trial in finished]
    )
    write_csv(folder / TRIALS, table)
    write_text(
        folder / BEST, dump_config(parse_config(nest(finished[0].params, config.model_dump())))
    )
    return Study(table, folder)
