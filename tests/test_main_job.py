"""Tests of the whole main job on `configs/smoke.yaml`, as a user runs it.

The job is to prepare, train, evaluate, export and predict.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import yaml
from google.protobuf import text_format
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.plugins.pr_curve.metadata import PRECISION_INDEX, RECALL_INDEX
from tensorboard.plugins.projector import ProjectorConfig

from eczema_tf import (
    evaluate,
    export,
    load_config,
    load_export,
    load_run,
    predict,
    prepare,
    train,
    train_run,
)
from eczema_tf.cli import TENSORFLOW_LOG
from eczema_tf.config import Config, change_config, dump_config
from eczema_tf.errors import ConfigError, EczemaError, RunError
from eczema_tf.evaluation.predictions import PROBABILITY_COLUMNS
from eczema_tf.explanation.one_pass import explain_in_one_pass
from eczema_tf.model.encoders import EncoderSpec
from eczema_tf.model.multimodal import Encoders
from eczema_tf.reporting.facts import RunData
from eczema_tf.schema import IMAGE, NEVER_SEEN_SKIN, NOTICE
from eczema_tf.serving.exported import ExportedModel
from eczema_tf.serving.graph.served_model import ServedModel
from eczema_tf.training.stages import train_model
from eczema_tf.workflows import export as exporting
from eczema_tf.workflows import parity, run_folder
from eczema_tf.workflows import train as training
from eczema_tf.workflows.audit import load_as_trained
from eczema_tf.workflows.board import HEATMAPS, flatten
from eczema_tf.workflows.hub import forget_handle, forget_places
from eczema_tf.workflows.tracking import log_run

# MLflow's store causes this warning under SQLAlchemy 2.1
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

ROOT = Path(__file__).parents[1]
SMOKE = ROOT / "configs" / "smoke.yaml"
TABS = {"scalars", "images", "graphs", "hparams", "pr_curves", "text", "projector"}
MLFLOW = importlib.util.find_spec("mlflow") is not None
URL = re.compile(r"http://127\.0\.0\.1:\d+/")


def do_main_job(folder: Path) -> None:
    """Makes prepared data, a finished run and an export in a folder."""
    made = ["synthetic", "--n", "160", "--seed", "0", "--out", str(folder / "synthetic")]
    assert prepare.main(made) == 0
    arguments = ["--config", str(SMOKE), *settings(folder), "--run-dir", str(folder / "run")]
    # long enough for the model to decide some cases
    more = ["--set", f"train.mlflow={str(MLFLOW).lower()}", "--set", "train.epochs=4"]
    assert train.main([*arguments, *more]) == 0


@pytest.fixture(scope="module")
def workplace(main_job: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A writable copy of the main job's folder, without MLflow's store, which records its path."""
    folder = tmp_path_factory.mktemp("main_job")
    ignored = shutil.ignore_patterns("mlflow")
    return Path(shutil.copytree(main_job, folder, dirs_exist_ok=True, ignore=ignored))


def settings(folder: Path) -> list[str]:
    values = {
        "data.manifest": folder / "synthetic" / "manifest.csv",
        "train.cache_folder": folder / "cache",
        "export.folder": folder / "export",
    }
    return [argument for key, value in values.items() for argument in ("--set", f"{key}={value}")]


def test_run_folder_contains_the_documented_files(workplace: Path):
    names = {child.name for child in (workplace / "run").iterdir()}
    assert {
        "config.yaml",
        "encoders.json",
        "data.json",
        "model.weights.h5",
        "tokenizer",
        "neutral_text.npy",
        "evidence.json",
        "thresholds.json",
        "metrics.json",
        "predictions.csv",
        "environment.json",
        "tensorboard",
        "checkpoints",
        "roc.png",
        "pr.png",
        "reliability.png",
        "decision.png",
    } <= names


def test_metrics_file_has_the_documented_structure(workplace: Path):
    metrics = json.loads((workplace / "run" / "metrics.json").read_text())
    assert metrics["split"] == "test"
    assert set(metrics["heads"]) == {"image", "text", "fusion"}
    for head in metrics["heads"].values():
        assert {"cases", "threshold", "auroc", "f1", "sensitivity", "specificity"} <= set(head)
        assert head["sensitivity"]["low"] <= head["sensitivity"]["value"]
        assert head["sensitivity"]["value"] <= head["sensitivity"]["high"]
        assert (head["auroc"]["low"] is None) == ("reason" in head["auroc"])  # cases may be too few
        assert head["calibration"]["brier"]["score"]["value"] > 0
    assert {"over", "value", "low", "high"} <= set(metrics["fusion_gain"])
    assert set(metrics["limit"]) == {"image", "text", "fusion"}
    assert set(metrics["wordings"]) == {"known", "new"}
    assert "Texts in wordings that occur in training" in (
        workplace / "run" / "report.html"
    ).read_text(encoding="utf-8")
    assert "Texts in wordings that occur in training" in (
        workplace / "run" / "model_card.md"
    ).read_text(encoding="utf-8")


def test_every_test_case_is_predicted_once_and_no_group_straddles_splits(workplace: Path):
    table = pd.read_csv(
        workplace / "synthetic" / "manifest.csv", keep_default_na=False, dtype=str
    ).set_index("example_id")
    splits = json.loads((workplace / "run" / "data.json").read_text())["splits"]
    groups = {split: set(table.loc[ids, "group_id"]) for split, ids in splits.items()}
    assert sum(len(ids) for ids in splits.values()) == len(table)
    assert not groups["train"] & groups["val"]
    assert not groups["train"] & groups["test"]
    assert not groups["val"] & groups["test"]
    predictions = pd.read_csv(workplace / "run" / "predictions.csv", dtype={"case_id": str})
    assert sorted(predictions["case_id"]) == sorted(table.loc[splits["test"], "case_id"].unique())


def test_tensorboard_reads_the_results_that_a_run_writes(workplace: Path):
    folder = workplace / "run" / "tensorboard"
    board = EventAccumulator(str(folder / "results"), {"tensors": 0}).Reload()
    metrics = json.loads((workplace / "run" / "metrics.json").read_text())
    tags = {
        plugin: set(board.PluginTagToContent(plugin)) - {"_hparams_/session_start_info"}
        for plugin in ("scalars", "pr_curves", "images", "text")
    }
    assert {f"test/auroc_{head}" for head in metrics["heads"]} <= tags["scalars"]
    assert tags["pr_curves"] == {f"test/{head}/pr_curves" for head in metrics["heads"]}
    assert tags["text"] == {"configuration", "model_card"}
    (card,) = board.Tensors("model_card")
    shown = tf.make_ndarray(card.tensor_proto).item()
    assert shown.startswith(b"\n# ")  # without the metadata for the Hub
    assert {"plots/roc", "plots/reliability"} <= tags["images"]
    assert len([tag for tag in tags["images"] if tag.startswith("heatmaps/")]) == HEATMAPS

    (auroc,) = board.Tensors("test/auroc_fusion")
    value = metrics["heads"]["fusion"]["auroc"]["value"]
    assert tf.make_ndarray(auroc.tensor_proto) == pytest.approx(value)
    (curve,) = board.Tensors("test/fusion/pr_curves")
    precision, recall = tf.make_ndarray(curve.tensor_proto)[[PRECISION_INDEX, RECALL_INDEX]]
    assert recall[0] == 1  # at threshold 0, all cases are called eczema
    fusion = metrics["heads"]["fusion"]
    assert precision[0] == pytest.approx(fusion["positives"] / fusion["cases"])
    layers = {part for node in board.Graph().node for part in node.name.split("/")}
    assert {"image_encoder", "text_encoder", "eczema_sum"} <= {
        re.sub(r"_\d+$", "", layer) for layer in layers
    }
    started = board.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    session = HParamsPluginData.FromString(started).session_start_info
    assert session.hparams["train.epochs"].number_value == 4
    assert session.hparams["model.image.preset"].string_value == "null"

    config = text_format.Parse(
        (folder / "results" / "projector_config.pbtxt").read_text(), ProjectorConfig()
    )
    vectors = pd.read_csv(
        folder / "results" / config.embeddings[0].tensor_path, sep="\t", header=None
    )
    labels = pd.read_csv(folder / "results" / config.embeddings[0].metadata_path, sep="\t")
    assert vectors.shape == (len(labels), 32)
    assert set(labels["split"]) == {"val", "test"}


def test_tensorboard_serves_a_run_over_http(workplace: Path):
    folder = str(workplace / "run" / "tensorboard")
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", folder, "--port", "0"]
    command += ["--host", "127.0.0.1", "--load_fast", "false"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as board:
        try:
            address = next(found[0] for line in board.stderr if (found := URL.search(line)))

            def get(path: str) -> Any:
                with urllib.request.urlopen(address + path, timeout=60) as answer:
                    return json.load(answer)

            for _ in range(600):  # TensorBoard reads in the background
                plugins = get("data/plugins_listing").items()
                shown = {name for name, plugin in plugins if plugin["enabled"]}
                if shown >= TABS:
                    break
                time.sleep(0.2)
            scalars = get("data/plugin/scalars/tags")["results"]
            curves = get("data/plugin/pr_curves/pr_curves?tag=test/fusion/pr_curves&run=results")
        finally:
            board.kill()
    assert shown >= TABS
    assert "test/auroc_fusion" in scalars
    assert curves["results"][0]["recall"][0] == 1


def test_mlflow_reads_a_logged_run_and_keeps_no_texts_or_photos(
    main_job: Path, workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    mlflow = pytest.importorskip("mlflow", reason="pip install -r requirements-mlflow.txt")
    assert (main_job / "mlflow" / "mlflow.db").is_file()  # training has logged the run
    run, store = workplace / "run", workplace / "mlflow"
    for _ in range(2):  # the second replaces the first
        log_run(run)
    client = mlflow.MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("eczema").experiment_id
    (logged,) = client.search_runs([experiment], "attributes.run_name = 'run'")
    assert logged.info.status == "FINISHED"
    assert logged.info.user_id == "unknown"
    assert set(logged.data.tags) == {"mlflow.note.content", "mlflow.runName", "split"}
    assert logged.data.tags["mlflow.note.content"] == f"{NEVER_SEEN_SKIN} {NOTICE}"
    config = flatten(load_config(run / "config.yaml"))
    assert logged.data.params == {key: str(value) for key, value in config.items()}

    metrics = json.loads((run / "metrics.json").read_text())
    fusion = metrics["heads"]["fusion"]["auroc"]["value"]
    assert logged.data.metrics["auroc_fusion"] == fusion
    losses = client.get_metric_history(logged.info.run_id, "heads/val_loss")
    assert [loss.step for loss in losses] == [1, 2, 3, 4]
    assert losses[-1].value == logged.data.metrics["heads/val_loss"] > 0

    names = {file.path for file in client.list_artifacts(logged.info.run_id)}
    assert names == {"report.html", "model_card.md", "thresholds.json", "SHA256SUMS"}
    copies = Path(client.download_artifacts(logged.info.run_id, "", tmp_path))
    assert all((copies / name).read_bytes() == (run / name).read_bytes() for name in names)

    kept = b"".join(path.read_bytes() for path in store.rglob("*") if path.is_file())
    texts = set(pd.read_csv(workplace / "synthetic" / "manifest.csv")["text"].dropna())
    assert [text for text in texts if text.encode() in kept] == []
    assert b"\xff\xd8\xff" not in kept  # a JPEG's first bytes

    telemetry = importlib.import_module("mlflow.telemetry.utils")
    monkeypatch.setattr(telemetry, "_IS_IN_CI_ENV_OR_TESTING", False)
    assert telemetry.is_telemetry_disabled()


def test_missing_mlflow_is_an_error_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    arguments = ["--config", str(SMOKE), "--set", "train.mlflow=true"]
    assert train.main([*arguments, "--run-dir", str(tmp_path / "run")]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "train.mlflow: needs MLflow" in line
    assert "pip install -r requirements-mlflow.txt" in line
    assert not list((tmp_path / "run").iterdir())


def test_evaluating_again_gives_the_same_metrics(workplace: Path, capsys: pytest.CaptureFixture):
    before = (workplace / "run" / "metrics.json").read_text()
    assert evaluate.main(["--run-dir", str(workplace / "run")]) == 0
    assert (workplace / "run" / "metrics.json").read_text() == before
    notice = f"{NEVER_SEEN_SKIN} {NOTICE}"
    assert notice in " ".join(capsys.readouterr().out.split())
    for name in ("report.html", "model_card.md"):
        assert (workplace / "run" / name).read_text(encoding="utf-8").count(notice) == 2


def test_sensitivity_option_sets_an_operating_point(workplace: Path, capsys: pytest.CaptureFixture):
    run, out = workplace / "run", workplace / "points"
    arguments = ["--run-dir", str(run), "--out", str(out), "--sensitivity", "0.8"]
    assert evaluate.main(arguments) == 0
    points = json.loads((out / "metrics.json").read_text())["operating_points"]
    assert {point["aim"] for point in points} == {"Youden", "sensitivity 0.8", "specificity 0.9"}
    asked = next(point for point in points if point["aim"] == "sensitivity 0.8")
    validation = pd.read_csv(run / "validation.csv")
    ill = validation[validation["eczema"] == 1][PROBABILITY_COLUMNS[asked["kind"]]].dropna()
    assert (ill >= asked["threshold"]).mean() >= 0.8
    with pytest.raises(SystemExit):
        evaluate.main([*arguments[:-1], "1.5"])
    assert "--sensitivity: must lie between 0 and 1; received '1.5'" in capsys.readouterr().err


def test_another_manifest_can_be_evaluated_without_splits(
    workplace: Path, capsys: pytest.CaptureFixture
):
    other, out = workplace / "synthetic" / "other.csv", workplace / "results"
    pd.read_csv(workplace / "synthetic" / "manifest.csv", dtype=str)[1:].to_csv(other, index=False)
    arguments = ["--run-dir", str(workplace / "run"), "--manifest", str(other)]
    options = ["--split", "all", "--allow-leaks", "--out", str(out)]
    assert evaluate.main([*arguments, *options]) == 0
    # as many cases as before: one of them only lost a photo
    assert json.loads((out / "metrics.json").read_text())["cases"] == 160
    assert evaluate.main([*arguments, "--out", str(out / "more")]) == 1
    assert "there are no such rows; give --split all" in capsys.readouterr().err


def test_second_export_adds_a_version_and_a_folder_to_share(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(exporting, "check_parity", lambda *_: "that of the first version")
    run, out, shared = (workplace / name for name in ("run", "export", "shared"))
    arguments = ["--run-dir", str(run), "--out", str(out), "--hub-folder", str(shared)]
    assert export.main([*arguments[:-1], str(out / "hub")]) == 1
    assert export.main(arguments) == 0
    assert {child.name for child in out.iterdir()} == {"1", "2"}

    card = (shared / "README.md").read_text("utf-8")
    assert card == (run / "model_card.md").read_text("utf-8")
    assert "not-for-medical-use" in yaml.safe_load(card.split("---\n")[1])["tags"]
    assert (shared / "evidence.json").read_text() == (run / "evidence.json").read_text()
    weights = run_folder.load_model(run).model.weights
    written = load_file(shared / "model.safetensors")
    assert set(written) == {weight.path for weight in weights}
    for weight in weights:
        np.testing.assert_array_equal(written[weight.path], weight.numpy())

    assert load_config(shared / "config.yaml").data.manifest == "manifest.csv"

    model = load_export(shared)  # checks the checksums, too
    asked = {"photos": [None, None], "texts": ["it itches at night", "a round ring"]}
    pd.testing.assert_frame_equal(model.predict(**asked), load_export(out).predict(**asked))
    assert model.metadata.thresholds == json.loads((shared / "thresholds.json").read_text())
    (shared / "README.md").write_text("mine")  # authors may edit the card
    load_export(shared)
    (shared / "config.yaml").write_text("seed: 1")
    with pytest.raises(RunError, match=r"config\.yaml: damaged"):
        load_export(shared)
    assert export.main(arguments) == 1  # an existing folder is not overwritten
    assert {child.name for child in out.iterdir()} == {"1", "2"}


def test_python_api_says_what_it_expects_instead_of_a_wrong_argument(
    workplace: Path, tmp_path: Path
):
    one = load_run(workplace / "run")
    for photos, said in (
        ([["a.jpg"]], "must be a photo's file or its bytes, or a list of these; received list"),
        ([np.zeros((8, 8, 3))], "received ndarray"),
        ([tmp_path / "none.jpg"], "none.jpg: cannot be read: No such file"),
        ([None, float("nan")], "nothing to explain: give a photo, a text or both"),
    ):
        with pytest.raises(EczemaError, match=said):
            one.explain(*photos, text=None)
    with pytest.raises(EczemaError, match="must be a string, or None for none; received bytes"):
        one.explain(text=b"itchy")
    with pytest.raises(EczemaError, match="allowed: train, val, test, all; received 'validation'"):
        one.evaluate(split="validation")
    with pytest.raises(ConfigError, match="must come from load_config; received dict"):
        train_run({"seed": 1}, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_built_in_data_of_another_generator_version_are_not_reused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = change_config(Config(), {"data.synthetic": {"folder": str(tmp_path), "cases": 5}})
    newest = tmp_path / f"synthetic-5-6000-0-v{training.GENERATOR_VERSION}"
    for folder in (tmp_path / "synthetic-5-6000-0", newest.with_name(f"{newest.name}0")):
        folder.mkdir()
        (folder / "manifest.csv").touch()
    made = Mock()
    monkeypatch.setattr(training, "prepare_synthetic", made)
    assert training.find_manifest(config) is made.return_value.manifest
    made.assert_called_once_with(newest, cases=5, texts=6000, seed=0)
    newest.mkdir()
    (newest / "manifest.csv").touch()
    assert training.find_manifest(config) == newest / "manifest.csv"
    made.assert_called_once()


def test_shared_configuration_contains_no_folder_of_its_author():
    places = {
        "data.manifest": "../jane/patients.csv",
        "train.base_run": "/home/jane/run",
        "train.cache_folder": "jane/cache",
        "model.text.preset": "hf://someone/bert",
        "model.image.preset": "/home/jane/preset",
    }
    hub = {"model.image.preset": None, "model.image.saved_model": "https://tfhub.dev/jane/derm/5"}
    kept = forget_places(change_config(Config(), hub)).model.image.saved_model
    assert kept == "https://tfhub.dev/jane/derm/5"
    shared = forget_places(change_config(Config(), places))
    assert (shared.data.manifest, shared.train.base_run) == ("patients.csv", "run")
    assert (shared.model.text.preset, shared.model.image.preset) == ("hf://someone/bert", "preset")
    assert "/home" not in dump_config(shared)


@pytest.mark.parametrize(
    "key",
    [
        "data.manifest",
        "data.embeddings",
        "data.synthetic.folder",
        "model.image.saved_model",
        "train.cache_folder",
        "export.folder",
    ],
)
def test_shared_configuration_cuts_each_path_to_its_name(key: str):
    hub = {"model.image.preset": None} if key == "model.image.saved_model" else {}
    shared = forget_places(change_config(Config(), {**hub, key: "/home/someone/last"}))
    assert "someone" not in dump_config(shared)
    assert "last" in dump_config(shared)


def test_shared_configuration_cuts_relative_paths_of_local_presets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "someone" / "bert").mkdir(parents=True)
    told = change_config(Config(), {"model.text.preset": "someone/bert"})
    assert forget_places(told).model.text.preset == "bert"
    (tmp_path / "someone" / "bert").rmdir()  # the name of a preset may contain a slash, too
    assert forget_places(told).model.text.preset == "someone/bert"


def test_shared_encoders_contain_no_folder_of_their_author():
    settings = {"input_kind": "pixels", "digest": "0"}
    image = EncoderSpec(kind="saved_model", settings=settings, pretrained=True)
    text = EncoderSpec(kind="small_text_network", settings={}, pretrained=False)
    for handle, kept in (("/home/jane/derm", "derm"), ("https://x.org/derm/5",) * 2, (None,) * 2):
        named = settings | ({"handle": handle} if handle else {})
        encoders = Encoders(image.model_copy(update={"settings": named}), text)
        assert forget_handle(encoders).image.settings.get("handle") == kept


def test_full_disk_is_reported_before_weights_are_written(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    trained, usage = run_folder.load_model(workplace / "run"), shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100_000))
    with pytest.raises(EczemaError, match=r"model\.weights\.h5.*No space left"):
        run_folder.save_model(tmp_path, trained)
    assert not (tmp_path / run_folder.WEIGHTS).exists()


def test_encoders_that_cannot_be_built_are_a_clear_error(workplace: Path, tmp_path: Path):
    run = Path(shutil.copytree(workplace / "run", tmp_path / "run"))
    run_folder.unseal(run)
    told = json.loads((run / run_folder.ENCODERS).read_text())
    told["text"]["settings"] = {"unheard_of": 1}
    (run / run_folder.ENCODERS).write_text(json.dumps(told))
    with pytest.raises(RunError, match=r"encoders\.json: encoders cannot be built .*unheard_of"):
        run_folder.load_model(run)


def test_data_that_changed_since_training_cause_a_warning(
    workplace: Path, capsys: pytest.CaptureFixture
):
    config = load_config(workplace / "run" / "config.yaml").data
    data = RunData.read(workplace / "run" / "data.json")
    load_as_trained(config, data)
    assert capsys.readouterr().err == ""
    load_as_trained(config, data.model_copy(update={"manifest_fingerprint": "other"}))
    assert "have changed since training" in capsys.readouterr().err


def skew_prior(trained, patch: pytest.MonkeyPatch) -> None:
    trained.model.get_layer("eczema_sum").prior.assign_add(0.01)


def skew_words(trained, patch: pytest.MonkeyPatch) -> None:
    trained.model.get_layer("eczema_text").bias.assign_add([0.01])


def skew_pixels(trained, patch: pytest.MonkeyPatch) -> None:
    read = ServedModel.read

    def read_brighter(served, image, text):
        inputs, *rest = read(served, image, text)
        return inputs | {IMAGE: inputs[IMAGE] + 1}, *rest

    patch.setattr(ServedModel, "read", read_brighter)


def skew_map(trained, patch: pytest.MonkeyPatch) -> None:
    def explain_upside_down(*arguments):
        why = explain_in_one_pass(*arguments)
        return why._replace(heatmap=why.heatmap[:, ::-1])

    patch.setattr(parity, "explain_in_one_pass", explain_upside_down)


@pytest.fixture(scope="module")
def exported(workplace: Path) -> ExportedModel:
    return load_export(workplace / "export" / "1")


@pytest.mark.parametrize(
    ("skew", "said"),
    [
        (skew_prior, r"eczema \(fusion\), row"),
        (skew_words, r"eczema_text \(features of the text, or their head\), row"),
        (skew_pixels, r"image \(decoding and preprocessing of the photo\), row 0 \("),
        (skew_map, r"heatmap \(gradient to the map of the photo\), row"),
    ],
)
def test_export_that_differs_from_keras_is_refused_naming_the_stage(
    workplace: Path,
    exported: ExportedModel,
    monkeypatch: pytest.MonkeyPatch,
    skew: Callable,
    said: str,
):
    """Keras is skewed, but the saved export is the earlier one. Nothing is left behind."""
    run, out = workplace / "run", workplace / "refused"
    trained = run_folder.load_model(run)
    skew(trained, monkeypatch)
    saved = partial(shutil.copytree, workplace / "export" / "1", dirs_exist_ok=True)
    monkeypatch.setattr(exporting, "save_served", lambda _, folder: saved(folder))
    monkeypatch.setattr(parity, "ExportedModel", lambda _: exported)  # loaded once for all skews
    with pytest.raises(RunError, match="the exported model differs from Keras: " + said):
        exporting.export_model(trained, run, out)
    assert not list(out.iterdir())


def test_predict_answers_for_photo_text_and_both(workplace: Path, capsys: pytest.CaptureFixture):
    photo = next((workplace / "synthetic" / "photos").iterdir())
    for arguments in (
        ["--image", str(photo)],
        ["--text", "it itches"],
        ["--image", str(photo), "--text", "it itches"],
    ):
        capsys.readouterr()
        assert predict.main(["--model", str(workplace / "export"), *arguments, "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["notice"] == f"{NEVER_SEEN_SKIN} {NOTICE}"
        assert answer["status"] == "ok"
        assert (answer["eczema"]["image"] is not None) == ("--image" in arguments)
        assert (answer["eczema"]["text"] is not None) == ("--text" in arguments)
        assert 0 <= answer["eczema"]["fusion"] <= 1
    assert predict.main(["--model", str(workplace / "export"), "--text", "it itches"]) == 0
    assert NOTICE in capsys.readouterr().out


def test_predict_prints_no_messages_of_tensorflow(workplace: Path):
    command = [sys.executable, "-m", "eczema_tf.predict", "--model", str(workplace / "export")]
    quiet = {name: value for name, value in os.environ.items() if name != TENSORFLOW_LOG}
    answer = subprocess.run([*command, "--text", "it itches"], env=quiet, capture_output=True)
    assert (answer.returncode, answer.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (train, ["--set", "train.learning_rte=1"], "did you mean 'learning_rate'?"),
        (train, ["--config", str(SMOKE), "--set", "data.manifest=no/such.csv"], "no/such.csv"),
        (train, ["--resume"], "--run-dir"),
        (evaluate, ["--run-dir", "no/such/run"], "contains no trained model"),
        (export, ["--run-dir", "no/such/run"], "contains no trained model"),
        (predict, ["--model", "no/such/model", "--text", "itchy"], "contains no SavedModel"),
        (predict, ["--model", "no/such/model"], "give --image, --text or both"),
        (predict, ["--model", "no/such/model", "--image", "no/such.jpg"], "no such file"),
    ],
)
def test_mistakes_are_reported_without_a_traceback(
    command, arguments, message, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert command.main(arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(re.findall("^error: ", error, re.MULTILINE)) == 1
    assert "Traceback" not in error


def test_bad_usage_exits_with_2():
    with pytest.raises(SystemExit) as caught:
        predict.main(["--text", "itchy"])
    assert caught.value.code == 2


def test_finished_run_folder_is_not_overwritten(workplace: Path, capsys: pytest.CaptureFixture):
    run = workplace / "run"
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert train.main(["--config", str(SMOKE), *settings(workplace), "--run-dir", str(run)]) == 1
    assert "already contains a run" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_resuming_a_finished_run_gives_the_same_metrics(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("export_model", "write_board"):  # both are done already
        monkeypatch.setattr(training, name, lambda *arguments: None)
    before = (workplace / "run" / "metrics.json").read_text()
    assert train.main(["--resume", "--run-dir", str(workplace / "run")]) == 0
    assert (workplace / "run" / "metrics.json").read_text() == before


def test_run_is_not_resumed_on_other_data(workplace: Path, tmp_path: Path):
    """Otherwise, the model might be evaluated on cases that it was trained on."""
    run = tmp_path / "run"
    run.mkdir()
    facts = run_folder.RunData.read(workplace / "run" / "data.json")
    facts.write(run / "data.json")
    nothing_learned = facts.model_copy(update={"manifest_fingerprint": "x"})
    run_folder.check_data(run, nothing_learned)
    (run / "checkpoints").mkdir()
    run_folder.check_data(run, facts)
    train, test = facts.splits["train"], facts.splits["test"]
    for changes, said in (
        ({"splits": {**facts.splits, "train": test, "test": train}}, "splits"),
        (
            {"manifest_fingerprint": "x", "photos_fingerprint": "y"},
            "manifest_fingerprint, photos_fingerprint",
        ),
    ):
        with pytest.raises(RunError, match=rf"other data \(changed: {said}\)"):
            run_folder.check_data(run, facts.model_copy(update=changes))


def test_cross_validation_predicts_every_case_once(workplace: Path):
    run = workplace / "folds"
    arguments = [
        "--config",
        str(SMOKE),
        *settings(workplace),
        "--set",
        "split.folds=2",
        "--set",
        "train.epochs=1",
        "--run-dir",
        str(run),
    ]
    assert train.main(arguments) == 0
    cases = pd.read_csv(workplace / "synthetic" / "manifest.csv")["case_id"].unique()
    assert sorted(pd.read_csv(run / "predictions.csv")["case_id"]) == sorted(cases)
    assert {child.name for child in (run / "folds").iterdir()} == {"0-0", "0-1"}
    points = json.loads((run / "metrics.json").read_text())["operating_points"]
    assert {"Youden", "sensitivity 0.9", "specificity 0.9"} <= {point["aim"] for point in points}


def test_mixed_precision_run_passes_parity_and_is_evaluated_the_same(
    tmp_path: Path, toy_manifest: Path, monkeypatch: pytest.MonkeyPatch
):
    run_dir = tmp_path / "run"
    settings = {
        "data.manifest": toy_manifest,
        "train.cache_folder": tmp_path / "cache",
        "train.mixed_precision": "on",
        "export.folder": tmp_path / "export",
    }
    sets = [argument for key, value in settings.items() for argument in ("--set", f"{key}={value}")]
    arguments = ["--config", str(SMOKE), "--run-dir", str(run_dir), *sets]
    monkeypatch.setattr(training, "write_board", lambda *arguments: None)  # other tests cover it
    policies = []

    def note_policy(*arguments: Any) -> Any:
        policies.append(keras.config.dtype_policy().name)
        return train_model(*arguments)

    monkeypatch.setattr("eczema_tf.workflows.fit.train_model", note_policy)
    assert train.main(arguments) == 0  # also checks the export's parity
    assert policies == ["mixed_float16"]
    encoder = run_folder.load_model(run_dir).model.get_layer("image_encoder")
    assert {layer.compute_dtype for layer in encoder.layers} == {"float32"}
    assert (tmp_path / "export" / "1" / "saved_model.pb").is_file()
    before = (run_dir / "metrics.json").read_text()
    assert evaluate.main(["--run-dir", str(run_dir)]) == 0
    assert (run_dir / "metrics.json").read_text() == before


def test_notebooks_and_python_examples_of_the_pages_run(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """All run in one kernel, and reuse the run and the export that the main job has made."""
    reason = "pip install -r requirements-docs.txt"
    nbclient = pytest.importorskip("nbclient", reason=reason)
    nbformat = pytest.importorskip("nbformat", reason=reason)
    pytest.importorskip("ipykernel", reason=reason)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    trained, exported = str(workplace / "run"), str(workplace / "export" / "1")
    reuse = f"""
from eczema_tf.workflows import run as _module

def _train_run(config, folder, train_run=_module.train_run):
    return train_run(config, folder) if "wrong" in folder else _module.Run({trained!r})

_module.train_run = _train_run
_module.Run.export = lambda self, out: {exported!r}
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(reuse)])
    for path in sorted(ROOT.glob("docs/notebooks/*.ipynb")):
        notebook.cells += nbformat.read(path, as_version=4).cells
    for page in (ROOT / "README.md", *ROOT.glob("docs/*.md")):
        blocks = re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
        notebook.cells += [nbformat.v4.new_code_cell(block) for block in blocks]
    for name in ("saved_models/eczema", "share/eczema"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).symlink_to(workplace / "export")
    client = nbclient.NotebookClient(
        notebook, timeout=200, resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    said = " ".join(
        output.get("text", "") + str(output.get("data", ""))
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    )
    assert "mine.csv:5: eczema" in said
    assert "not-there.jpg" in said
    assert NOTICE in said
