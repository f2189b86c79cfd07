"""Tests for variants of the smoke run: encoders, fusions, one modality, leaks and repeats."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras_hub
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.special import logit
from test_main_job import SMOKE, settings

from eczema_tf import evaluate, explain, predict, prepare, train
from eczema_tf import export as export_verb
from eczema_tf.config import load_config
from eczema_tf.data.dataset import load_dataset
from eczema_tf.data.text.tokenizer import SPECIAL_TOKENS
from eczema_tf.evaluation.records import Leaks
from eczema_tf.training.stages import History
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.audit import AuditedDataset
from eczema_tf.workflows.fit import fit_run, train_run
from eczema_tf.workflows.inference import predict_cases
from eczema_tf.workflows.train import split_dataset


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("variants")
    assert (
        prepare.main(["synthetic", "--n", "60", "--seed", "3", "--out", str(folder / "synthetic")])
        == 0
    )
    return folder


@pytest.fixture(scope="module")
def bert(workplace: Path) -> Path:
    """Saves a tiny frozen BERT in the form that `scripts/convert_bert.py` writes."""
    folder = workplace / "bert"
    words = (
        pd.read_csv(workplace / "synthetic" / "manifest.csv")["text"]
        .dropna()
        .str.lower()
        .str.findall("[a-z]+")
        .explode()
    )
    vocabulary = [*SPECIAL_TOKENS, *sorted(set(words) | set("abcdefghijklmnopqrstuvwxyz"))]
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=len(vocabulary),
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=64,
    )
    backbone.save_to_preset(str(folder))
    keras_hub.models.BertTokenizer(vocabulary, lowercase=True).save_to_preset(str(folder))
    return folder


def run_smoke(workplace: Path, run: Path, *sets: str, options: Sequence[str] = ()) -> int:
    changes = [argument for setting in sets for argument in ("--set", setting)]
    common = ["--config", str(SMOKE), *settings(workplace), "--set", "train.epochs=1"]
    return train.main([*common, *changes, *options, "--run-dir", str(run)])


@pytest.mark.parametrize(
    ("image", "text", "pooling", "fusion"),
    [("vit", "bert", "max", "gated"), ("deit", "small", "mean", "late")],
)
def test_variant_predicts_the_same_after_training_and_reloading(
    workplace: Path, tmp_path: Path, image: str, text: str, pooling: str, fusion: str
):
    sets = [f"model.image.architecture={image}", f"model.text.architecture={text}"]
    sets += [f"model.text.pooling={pooling}", f"model.fusion={fusion}", "train.epochs=1"]
    config = load_config(SMOKE, [*settings(workplace)[1::2], *sets])
    dataset = load_dataset(config.data, config.data.manifest)
    splits = split_dataset(config, dataset)
    run_folder.write_start(tmp_path, config)
    trained, inputs, _ = train_run(config, dataset, splits, tmp_path)
    rows = np.arange(len(splits))
    before = predict_cases(trained, dataset, inputs, rows)
    assert before["p_fusion"].nunique() > 5
    again = predict_cases(run_folder.load_model(tmp_path), dataset, inputs, rows)
    pd.testing.assert_frame_equal(again, before)


def test_frozen_bert_and_vision_transformer_complete_the_main_job(
    workplace: Path, bert: Path, capsys: pytest.CaptureFixture
):
    run, export = workplace / "run", workplace / "export"
    sets = ["model.image.architecture=vit", f"model.text.preset={bert}"]
    sets += ["model.text.max_tokens=64", "model.text.pooling=mean_max"]
    sets += ["model.fusion=cross_attention", f"export.folder={export}"]
    assert run_smoke(workplace, run, *sets) == 0
    before = (run / "metrics.json").read_text()
    assert evaluate.main(["--run-dir", str(run)]) == 0
    assert (run / "metrics.json").read_text() == before
    capsys.readouterr()
    photo = next((workplace / "synthetic" / "photos").iterdir())
    table = pd.read_csv(workplace / "synthetic" / "manifest.csv", keep_default_na=False)
    learned = json.loads((run / "data.json").read_text())["splits"]["train"]
    (text, *_) = filter(None, table["text"][table["example_id"].isin(learned)])
    case = ["--image", str(photo), "--text", text, "--json"]
    assert predict.main(["--model", str(export), *case]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "ok"


def write_manifest(folder: Path, *, photos: bool) -> Path:
    """Writes upright phone photos, one of 31 megapixels, without texts; or texts and ages."""
    rng, exif, rows = np.random.default_rng(0), Image.Exif(), []
    exif[0x0112] = 6  # orientation: turned by 90 degrees
    for case in range(24):
        row = {"example_id": f"row{case}", "image_path": "", "text": "", "eczema": case % 2}
        if photos:
            pixels = rng.integers(60, 120, (40, 52, 3)).astype("uint8")
            pixels[8:30, 10:40, 0] = 250 if case % 2 else 60
            photo = Image.fromarray(pixels)
            photo = photo.resize((5200, 6000)) if case == 5 else photo
            photo.save(folder / f"{case}.jpg", exif=exif, quality=60)
            row["image_path"] = f"{case}.jpg"
        else:
            row["text"] = f"my skin is {'itchy' if case % 2 else 'spotty'} for {case} days"
            row["age"] = "" if case % 5 == 4 else 20 + 30 * (case % 2) + case
            row["findings"] = "itch=yes"
        rows.append(row)
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


@pytest.mark.parametrize("photos", [True, False], ids=["photos alone", "texts and ages"])
def test_data_with_only_photos_or_only_texts_trains_and_exports(
    tmp_path: Path, photos: bool, capsys: pytest.CaptureFixture
):
    manifest, export = write_manifest(tmp_path, photos=photos), tmp_path / "export"
    sets = [f"data.manifest={manifest}", "train.epochs=1", "export.enabled=false"]
    sets += [f"train.cache_folder={tmp_path / 'cache'}", "evaluate.bootstrap_replicates=100"]
    told = ["data.clinical={age: number}", "train.refit=true", "train.keep=last"]
    sets += [] if photos else told
    arguments = [argument for setting in sets for argument in ("--set", setting)]
    run = ["--config", str(SMOKE), *arguments, "--run-dir", str(tmp_path / "run")]
    assert train.main(run) == 0
    assert (tmp_path / "run" / "before_refit").is_dir() == (not photos)
    if not photos:
        check_refit(tmp_path / "run", capsys)
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    manifest.unlink()  # a run can be exported without its data
    again = ["--run-dir", str(tmp_path / "run"), "--out", str(export)]
    assert export_verb.main(again) == 0
    assert (export / "1" / "saved_model.pb").is_file()
    if not photos:
        check_ages(export, tmp_path, capsys)


def check_refit(run: Path, capsys: pytest.CaptureFixture) -> None:
    """Both networks are alike, although only the second has texts enough to learn a finding."""
    first, second = (
        json.loads((folder / "encoders.json").read_text())["findings"]
        for folder in (run / "before_refit", run)
    )
    assert first == second == []
    assert json.loads((run / "metrics.json").read_text())["clinical"] == ["age"]
    capsys.readouterr()
    assert evaluate.main(["--run-dir", str(run), "--split", "val"]) == 1
    assert "with train.refit, a run also learns from its validation" in capsys.readouterr().err


def check_ages(export: Path, folder: Path, capsys: pytest.CaptureFixture) -> None:
    """Checks that a stated age changes the answer in the same way in the export and the run."""
    case, told = ["--text", "itchy"], ["--clinical", "age=70"]
    answers = []
    for given in ([], told):
        capsys.readouterr()
        assert predict.main(["--model", str(export), *case, *given, "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    silent, answer = (one["eczema"]["fusion"] for one in answers)
    assert answer > silent == answers[0]["eczema"]["text"] == answers[1]["eczema"]["text"]
    run = ["--run-dir", str(folder / "run"), "--out", str(folder / "why")]
    assert explain.main([*run, *case, *told]) == 0
    why = json.loads((folder / "why" / "explanation.json").read_text())
    assert why["eczema"]["fusion"] == pytest.approx(answer, abs=1e-5)
    moved = why["contributions"]["clinical"]
    assert moved == pytest.approx(logit(answer) - logit(silent), abs=1e-3)
    assert "the clinical fields" in (folder / "why" / "explanation.html").read_text()
    unknown = ["--clinical", "shoe=42"]
    assert predict.main(["--model", str(export), *case, *unknown]) == 1
    assert explain.main([*run[:3], str(folder / "nothing"), *case, *unknown]) == 1
    assert capsys.readouterr().err == "error: clinical field 'shoe': allowed: age\n" * 2


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch, without_board: None) -> None:
    """Skips training, for tests in which the answers of the model do not matter."""
    monkeypatch.setattr("eczema_tf.workflows.fit.train_model", lambda *given: History([]))


@pytest.fixture(scope="module")
def leaky(workplace: Path) -> Path:
    """Built-in cases with splits, where a test photo is a copy of a training photo."""
    folder = workplace / "leaky"
    shutil.copytree(workplace / "synthetic", folder)
    table = pd.read_csv(folder / "manifest.csv", keep_default_na=False, dtype=str)
    cases = table["case_id"].unique()
    table["split"] = table["case_id"].map(
        dict(zip(cases, np.resize(["train", "train", "val", "test"], len(cases)), strict=True))
    )
    photos = table[table["image_path"] != ""]
    first, second = (photos[photos["split"] == split].iloc[0] for split in ("train", "test"))
    shutil.copyfile(folder / first["image_path"], folder / second["image_path"])
    table.to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


def test_leak_between_the_splits_of_a_manifest_stops_the_run(
    leaky: Path, workplace: Path, capsys: pytest.CaptureFixture
):
    assert run_smoke(workplace, workplace / "refused", f"data.manifest={leaky}") == 1
    error = capsys.readouterr().err
    assert "the splits leak" in error
    assert "identical photo" in error
    assert "--allow-leaks" in error
    assert not (workplace / "refused" / "model.weights.h5").exists()


def test_allowed_leak_is_reported_by_training_and_evaluation(
    leaky: Path, workplace: Path, untrained: None, capsys: pytest.CaptureFixture
):
    run, sets = workplace / "allowed", [f"data.manifest={leaky}", "export.enabled=false"]
    assert run_smoke(workplace, run, *sets, options=["--allow-leaks"]) == 0
    warning = "WARNING: Leaks: some of these cases, photos, texts or groups were also in"
    assert warning in capsys.readouterr().out
    assert json.loads((run / "metrics.json").read_text())["leaks"]["leaks"] == 1
    assert evaluate.main(["--run-dir", str(run)]) == 0
    assert warning in capsys.readouterr().out


def test_cross_validation_repeats_count_every_case_once(
    workplace: Path, untrained: None, monkeypatch: pytest.MonkeyPatch
):
    """Only one model is made; it is used for all folds."""
    run, models = workplace / "repeated", []

    def fit_once(*given: Any) -> Any:
        models[:] = models or [fit_run(*given)]
        return models[0]

    found = [Leaks(leaks=2, examples=["a", "b"]), Leaks(leaks=0, examples=[])]  # per repeat
    monkeypatch.setattr(AuditedDataset, "check", lambda *_: found.pop(0))
    monkeypatch.setattr("eczema_tf.workflows.cross_validate.fit_run", fit_once)
    divisions = ["split.folds=2", "split.repeats=2"]
    assert run_smoke(workplace, run, *divisions, "export.enabled=false") == 0
    predictions = pd.read_csv(run / "predictions.csv")
    metrics, folds = (
        json.loads((run / name).read_text()) for name in ("metrics.json", "data.json")
    )
    assert (predictions["case_id"].value_counts() == 2).all()
    assert metrics["cases"] == metrics["bootstrap"]["groups"] == 60
    assert metrics["heads"]["fusion"]["cases"] == 60
    assert metrics["leaks"] == {"leaks": 2, "examples": ["a", "b"]}
    assert folds["folds"]["0"] != folds["folds"]["1"]
    assert {child.name for child in (run / "folds").iterdir()} == {"0-0", "0-1", "1-0", "1-1"}


def test_later_evaluation_joins_cases_that_share_a_photo(
    leaky: Path, workplace: Path, untrained: None
):
    """Without splits, a duplicate photo makes one group of two cases."""
    manifest, run = leaky.parent / "unsplit.csv", workplace / "joined"
    table = pd.read_csv(leaky, keep_default_na=False, dtype=str)
    table.assign(split="").to_csv(manifest, index=False)
    assert run_smoke(workplace, run, f"data.manifest={manifest}", "export.enabled=false") == 0
    joined = json.loads((run / "data.json").read_text())["joined_groups"]
    ids = zip(table["example_id"], table["case_id"], strict=True)
    table["group"] = [joined.get(example_id, case_id) for example_id, case_id in ids]
    photos = table[table["image_path"] != ""]
    content = [(leaky.parent / path).read_bytes() for path in photos["image_path"]]
    copies = photos[pd.Series(content, photos.index).duplicated(keep=False)]
    assert len(set(copies["case_id"])) == 2
    assert len(set(copies["group"])) == 1
    assert table["group"].nunique() == 59
    again = ["--split", "all", "--allow-leaks", "--manifest", str(manifest)]
    assert evaluate.main(["--run-dir", str(run), *again, "--out", str(run / "all")]) == 0
    metrics = json.loads((run / "all" / "metrics.json").read_text())
    assert metrics["cases"] == 60
    assert metrics["bootstrap"]["groups"] == 59
