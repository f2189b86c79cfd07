"""A run is evaluated on other data, its training data are refused, and its files stay intact."""

import json
import shutil
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest

from eczema_tf import evaluate, train
from eczema_tf.config import Config, DataConfig, change_config, load_config
from eczema_tf.data.audit.overlap import Seen, find_overlap, note_seen
from eczema_tf.data.dataset import Dataset, load_dataset
from eczema_tf.errors import DataError, EczemaError, RunError
from eczema_tf.evaluation.records import Metrics
from eczema_tf.reporting.model_card import GAP
from eczema_tf.workflows import results, run_folder
from eczema_tf.workflows import train as training
from eczema_tf.workflows.audit import check_overlap
from eczema_tf.workflows.results import write_card
from eczema_tf.workflows.run_folder import BEFORE_REFIT, take_back_start, write_start

pytestmark = pytest.mark.usefixtures("without_board")

SMOKE = Path(__file__).parents[1] / "configs" / "smoke.yaml"
WORDS = [f"w{letter}{letter}" for letter in "abcdefghijklmnopqrstuvwxy"]


def write_text(row: int) -> str:
    """Returns twelve words in an order that no other row has."""
    return " ".join(np.random.default_rng(row).choice(WORDS, 12))


def save_data(folder: Path, rows: range, dimension: int = 6, **changed: list[str]) -> Path:
    """Writes `m.csv` and `e.npz`, with one embedding per row that contains the row's label."""
    folder.mkdir()
    labels = np.arange(len(rows)) % 2
    table = {
        "example_id": [f"e{row}" for row in rows],
        "image_path": [f"{row}.jpg" for row in rows],
        "text": [write_text(row) for row in rows],
        "eczema": labels,
    } | changed
    pd.DataFrame(table).to_csv(folder / "m.csv", index=False)
    embeddings = [np.random.default_rng(row).normal(size=dimension) for row in rows]
    matrix = np.array(embeddings, "float32") + labels[:, None]
    np.savez(folder / "e.npz", image_path=table["image_path"], embedding=matrix)
    return folder


def load(folder: Path) -> Dataset:
    return load_dataset(DataConfig(embeddings=str(folder / "e.npz")), folder / "m.csv")


def note_all(dataset: Dataset) -> Seen:
    return note_seen(dataset, np.ones(len(dataset.table), bool))


def test_photos_and_texts_of_training_are_found_in_other_data(tmp_path: Path):
    seen = note_all(load(save_data(tmp_path / "a", range(30))))
    texts = [write_text(5).upper().replace(" ", ",  "), write_text(41), "rash", ""]
    other = load(save_data(tmp_path / "b", range(40, 44), text=texts))
    rows = np.arange(4)
    assert find_overlap(seen, other, rows) == ["'e40': its text was in training or validation"]
    renamed = [f"copy{row}.jpg" for row in rows]
    copied = save_data(
        tmp_path / "c", range(28, 32), text=texts[1:] + texts[:1], image_path=renamed
    )
    copied = load(copied)
    assert find_overlap(seen, copied, rows) == [
        "'e28': its photo was in training or validation",
        "'e29': its photo was in training or validation",
        "'e31': its text was in training or validation",
    ]
    assert find_overlap(seen, copied, rows[2:3]) == []


def test_stock_texts_and_templates_are_not_recorded_as_seen(tmp_path: Path):
    stock = "it itches a lot and the skin is red and dry"
    texts = ["rash", "What could this be?", *[stock] * 28]
    seen = note_all(load(save_data(tmp_path / "a", range(30), text=texts)))
    assert seen.texts == []
    assert len(seen.photos) == 30
    templates = save_data(tmp_path / "b", range(30), source=["template"] * 30)
    assert note_all(load(templates)).texts == []
    assert len(note_all(load(save_data(tmp_path / "c", range(30)))).texts) == 30


def test_only_rows_of_training_and_validation_are_recorded(tmp_path: Path):
    dataset = load(save_data(tmp_path / "a", range(30)))
    seen = note_seen(dataset, np.arange(30) < 20)
    assert len(seen.photos) == len(seen.texts) == 20
    assert find_overlap(seen, dataset, np.arange(20, 30)) == []
    assert len(find_overlap(seen, dataset, np.arange(30))) == 40


def test_hashes_contain_no_content_and_differ_between_runs(tmp_path: Path):
    dataset = load(save_data(tmp_path / "a", range(30)))
    first, second = note_all(dataset), note_all(dataset)
    assert not {*first.photos, *first.texts} & {*second.photos, *second.texts}
    kept = first.model_dump_json()
    assert not [word for word in WORDS if word in kept]
    assert first.texts == sorted(first.texts)
    assert {len(key) for key in first.texts} == {16}


def test_overlap_is_refused_unless_allowed(tmp_path: Path, capsys: pytest.CaptureFixture):
    dataset, rows = load(save_data(tmp_path / "a", range(30))), np.arange(30)
    seen = note_all(dataset)
    with pytest.raises(DataError, match=r"--allow-leaks \(60 faults\):\n  'e0': its photo was in"):
        check_overlap([seen], dataset, rows, allow_leaks=False)
    found = check_overlap([seen], dataset, rows, allow_leaks=True)
    assert found is not None
    assert (found.leaks, len(found.examples)) == (60, 20)
    # what a run's base has seen counts too
    before = check_overlap([seen, seen], dataset, rows, allow_leaks=True)
    assert before is not None
    assert before.leaks == 120
    assert check_overlap([None], dataset, rows, allow_leaks=False) is None
    assert "to have it compared, train again" in capsys.readouterr().err


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trains a run on embeddings; beside it are its data, in `a`, and other data, in `b`."""
    folder = tmp_path_factory.mktemp("other")
    save_data(folder / "a", range(80))
    save_data(folder / "b", range(1000, 1030))
    values = {
        "data.manifest": folder / "a" / "m.csv",
        "data.embeddings": folder / "a" / "e.npz",
        "train.cache_folder": folder / "cache",
        "train.epochs": 1,
        "export.enabled": "false",
    }
    sets = [argument for key, value in values.items() for argument in ("--set", f"{key}={value}")]
    assert train.main(["--config", str(SMOKE), *sets, "--run-dir", str(folder / "run")]) == 0
    return folder / "run"


def judge(run: Path, other: Path, *more: str, out: str = "judged") -> int:
    arguments = ["--manifest", str(other / "m.csv"), "--embeddings", str(other / "e.npz")]
    out_arguments = ["--split", "all", "--out", str(run / out)]
    return evaluate.main(["--run-dir", str(run), *arguments, *out_arguments, *more])


def test_run_on_embeddings_is_evaluated_on_other_embeddings(run: Path):
    assert judge(run, run.parent / "b") == 0
    metrics = Metrics.read(run / "judged" / "metrics.json")
    assert metrics.heads["image"].cases == metrics.heads["fusion"].cases == 30
    assert metrics.leaks is not None
    assert metrics.leaks.leaks == 0
    assert metrics.external is not None
    words = metrics.external.shift["words of text"]
    assert (words.training.mean, words.here.mean, words.difference) == (12, 12, 0)
    own = Metrics.read(run / "metrics.json")
    assert metrics.external.heads["text"]["auroc"].internal == own.heads["text"].auroc
    page = (run / "judged" / "report.html").read_text()
    assert "Recalibration in the large" in page
    assert "Data judged on" in page
    assert own.external is None


def test_cases_of_which_the_model_uses_nothing_are_left_out(
    run: Path, capsys: pytest.CaptureFixture
):
    texts = ["<br>", "w dry", "", "w itchy"]  # the first has no photo, and nothing readable
    other = save_data(run.parent / "nothing", range(3000, 3004), text=texts)
    table = pd.read_csv(other / "m.csv").assign(image_path=["", "3001.jpg", "3002.jpg", ""])
    table.to_csv(other / "m.csv", index=False)
    assert judge(run, other, out="some") == 0
    assert "note: 1 of 4 cases have no photo and no text that this model can use" in (
        capsys.readouterr().err
    )
    assert list(pd.read_csv(run / "some" / "predictions.csv")["case_id"]) == [
        "e3001",
        "e3002",
        "e3003",
    ]
    assert Metrics.read(run / "some" / "metrics.json").cases == 3
    table[:1].to_csv(other / "m.csv", index=False)
    assert judge(run, other, out="none") == 1
    assert "1 of 1 cases have no photo and no text that this model can use; give" in (
        capsys.readouterr().err
    )


def test_evaluating_the_test_split_again_gives_the_same_metrics(run: Path):
    before = json.loads((run / "metrics.json").read_text())
    assert evaluate.main(["--run-dir", str(run)]) == 0
    assert json.loads((run / "metrics.json").read_text()) == before


def test_moved_manifest_of_the_run_has_the_same_test_split(run: Path, tmp_path: Path):
    shutil.copy(run.parent / "a" / "m.csv", tmp_path / "moved.csv")
    arguments = ["--run-dir", str(run), "--manifest", str(tmp_path / "moved.csv")]
    assert evaluate.main([*arguments, "--out", str(tmp_path / "out")]) == 0
    before, after = (Metrics.read(place / "metrics.json") for place in (run, tmp_path / "out"))
    assert (after.cases, after.heads["fusion"].auroc) == (
        before.cases,
        before.heads["fusion"].auroc,
    )
    assert after.leaks.leaks == 0


def test_test_case_that_now_has_a_training_text_is_refused(
    run: Path, capsys: pytest.CaptureFixture
):
    manifest, splits = run.parent / "a" / "m.csv", run_folder.RunData.read(run / "data.json").splits
    whole = manifest.read_text()
    table = pd.read_csv(manifest, dtype=str).set_index("example_id", drop=False)
    table.loc[splits["test"][0], "text"] = table.loc[splits["train"][0], "text"]
    try:
        table.to_csv(manifest, index=False)
        assert evaluate.main(["--run-dir", str(run)]) == 1
    finally:
        manifest.write_text(whole)
    said = capsys.readouterr().err
    assert "have changed since training" in said
    assert "the run has already seen rows that it would be evaluated on" in said


def test_embeddings_that_do_not_fit_are_reported(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    assert judge(run, save_data(tmp_path / "wide", range(1000, 1030), dimension=7)) == 1
    assert "of 7 values; this run was trained on 6" in capsys.readouterr().err
    other = save_data(tmp_path / "others", range(1000, 1030))
    table = pd.read_csv(other / "m.csv")
    table.assign(image_path=table["image_path"] + "g").to_csv(other / "m.csv", index=False)
    assert judge(run, other) == 1
    assert "none of its photos has an embedding" in capsys.readouterr().err
    renamed = [f"{row}.jpg" for row in range(1001, 1031)]
    table.assign(image_path=renamed).to_csv(other / "m.csv", index=False)
    assert judge(run, other) == 0
    assert "1 rows name a photo that has no embedding" in capsys.readouterr().err
    arguments = ["--run-dir", str(run), "--embeddings", str(other / "e.npz")]
    assert evaluate.main(arguments) == 1
    assert "--embeddings: needs --manifest" in capsys.readouterr().err


def test_training_data_are_refused_or_marked_in_every_table(
    run: Path, capsys: pytest.CaptureFixture
):
    own = run.parent / "a"
    assert judge(run, own, out="refused") == 1
    assert "the run has already seen rows that it would be evaluated on" in capsys.readouterr().err
    assert not (run / "refused").exists()
    assert judge(run, own, "--allow-leaks", out="leaky") == 0
    printed = capsys.readouterr().out
    tables = ("Without a threshold", "At the thresholds chosen on validation", "AUROC by subset")
    report = (run / "leaky" / "report.html").read_text()
    for text in (printed, report):
        marked = [line for line in text.splitlines() if "(too good: leaks)" in line]
        assert all(any(table in line for line in marked) for table in tables)
        found = "photos, texts or groups were also in training or validation"
        assert found in " ".join(text.split())
    leaks = Metrics.read(run / "leaky" / "metrics.json").leaks
    assert leaks is not None
    assert leaks.leaks > 80  # photos and texts of about 68 rows


def test_train_split_is_evaluated_and_counted_as_leaks(run: Path):
    out = run / "training"
    assert evaluate.main(["--run-dir", str(run), "--split", "train", "--out", str(out)]) == 0
    leaks = Metrics.read(out / "metrics.json").leaks
    assert leaks is not None
    assert leaks.leaks > 80


def test_results_on_other_data_do_not_overwrite_those_of_the_run(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    before = (run / "metrics.json").read_text()
    assert judge(run, run.parent / "b", out=".") == 1
    assert "is the folder of a run, whose own results would be lost" in capsys.readouterr().err
    assert evaluate.main(["--run-dir", str(run), "--split", "train", "--out", str(run)]) == 1
    assert (run / "metrics.json").read_text() == before
    card = (run / "model_card.md").read_text()
    (run / "model_card.md").write_text(f"old. {GAP}")
    monkeypatch.chdir(run.parent)
    assert evaluate.main(["--run-dir", run.name, "--out", str(run)]) == 0  # on its own test split
    assert (run / "metrics.json").read_text() == before
    assert (run / "model_card.md").read_text() == card


def test_results_on_manifests_of_one_name_go_to_separate_folders(run: Path, tmp_path: Path):
    for name in ("one", "other"):
        data = save_data(tmp_path / name, range(2000, 2030))
        manifest = (data / "m.csv").rename(data / "manifest.csv")
        arguments = ["--manifest", str(manifest), "--embeddings", str(data / "e.npz")]
        assert evaluate.main(["--run-dir", str(run), *arguments, "--split", "all"]) == 0
    assert {"one-all", "other-all"} <= {path.name for path in (run / "evaluations").iterdir()}


def test_data_with_another_positive_class_or_no_labels_are_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    rows = range(1000, 1030)
    other = save_data(tmp_path / "other", rows, positive_class=["malignant"] * len(rows))
    assert judge(run, other) == 1
    assert "asks for malignant" in capsys.readouterr().err
    unlabelled = save_data(tmp_path / "unlabelled", rows, eczema=[""] * len(rows))
    assert judge(run, unlabelled, out="unlabelled") == 1
    assert "none of its 30 rows has a label in the column eczema" in capsys.readouterr().err
    assert not (run / "unlabelled").exists()


def test_refused_manifest_or_preset_leaves_the_run_folder_free(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    data = save_data(tmp_path / "data", range(80), eczema=[*["2"], *["0", "1"] * 39, "0"])
    arguments = [
        *("--config", str(SMOKE), "--set", f"data.manifest={data / 'm.csv'}"),
        *("--set", f"data.embeddings={data / 'e.npz'}", "--set", "train.epochs=1"),
        *("--set", "export.enabled=false", "--set", f"train.cache_folder={tmp_path / 'cache'}"),
        *("--run-dir", str(tmp_path / "run")),
    ]
    assert train.main(arguments) == 1
    assert "m.csv:2: eczema" in capsys.readouterr().err
    assert not (tmp_path / "run" / "config.yaml").exists()
    assert train.main([*arguments, "--set", "model.text.preset=./none"]) == 1
    assert "model.text.preset: ./none: no such folder" in capsys.readouterr().err
    assert not (tmp_path / "run" / "config.yaml").exists()
    write_start(tmp_path / "run", load_config(SMOKE))
    write_start(tmp_path / "run" / BEFORE_REFIT, load_config(SMOKE))
    take_back_start(tmp_path / "run")  # nothing was trained there either
    table = pd.read_csv(data / "m.csv").replace({"eczema": {2: 1}})
    table.to_csv(data / "m.csv", index=False)
    assert train.main(arguments) == 0
    assert train.main(arguments) == 1
    assert "already contains a run" in capsys.readouterr().err


def test_results_folder_or_file_is_refused_as_a_run_folder(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    assert judge(run, run.parent / "b") == 0
    faults = ((run / "judged", "contains results of"), (tmp_path / "file", "is a file"))
    for folder, fault in faults:
        (tmp_path / "file").touch()
        assert train.main(["--config", str(SMOKE), "--run-dir", str(folder)]) == 1
        assert fault in capsys.readouterr().err


def test_built_in_data_made_meanwhile_by_another_process_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = change_config(Config(), {"data.synthetic.folder": str(tmp_path)})

    def lose(folder: Path, **_: object) -> None:
        folder.mkdir()
        (folder / "manifest.csv").write_text("made by the other")
        raise EczemaError(f"{folder}: cannot be written: Directory not empty")

    monkeypatch.setattr(training, "prepare_synthetic", lose)
    assert training.find_manifest(config).read_text() == "made by the other"

    def fail(folder: Path, **_: object) -> None:
        raise EczemaError(f"{folder}: cannot be written: No space left on device")

    monkeypatch.setattr(training, "prepare_synthetic", fail)
    with pytest.raises(EczemaError, match="No space left"):
        training.find_manifest(change_config(config, {"data.synthetic.seed": 1}))


def test_model_card_that_was_filled_in_is_kept(tmp_path: Path, capsys):
    card = tmp_path / "model_card.md"
    for told in (f"first. {GAP}", f"second. {GAP}"):
        write_card(card, told)
        assert card.read_text() == told
    card.write_text("second. Ask the clinic.")
    write_card(card, f"third. {GAP}")
    assert card.read_text() == "second. Ask the clinic."
    assert (tmp_path / "model_card_new.md").read_text() == f"third. {GAP}"
    assert "model_card.md was filled in and is kept" in capsys.readouterr().err
    card.write_bytes("Université".encode("latin-1"))
    write_card(card, f"fourth. {GAP}")
    assert card.read_bytes() == b"Universit\xe9"


@pytest.mark.parametrize(
    "trained", ["", "checkpoints/one", "model.weights.h5", "folds", "before_refit/checkpoints/one"]
)
def test_full_disk_leaves_the_run_folder_free_if_nothing_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: str
):
    def fail(_: Config, folder: Path) -> None:
        (folder / "checkpoints").mkdir()  # empty, as nothing could be written
        (folder / trained).mkdir(parents=True, exist_ok=True)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training, "_train", fail)
    with pytest.raises(OSError, match="No space left"):
        training.train(Config(), tmp_path / "run")
    assert (tmp_path / "run" / "config.yaml").exists() == bool(trained)


def test_run_is_sealed_only_after_everything_is_written(monkeypatch: pytest.MonkeyPatch):
    """The checksum file marks a run as finished."""
    order = MagicMock()
    order.write_board.side_effect = OSError(28, "No space left on device")
    order.fit_run.return_value = [MagicMock()] * 3
    for name in (
        *("split_dataset", "list_seen_by_base", "fit_run", "note_neutral_text"),
        *("note_evidence_scale", "predict_cases", "predict_missing", "write_results"),
        "write_board",
    ):
        monkeypatch.setattr(training, name, getattr(order, name))
    monkeypatch.setattr(run_folder, "seal", order.seal)
    with pytest.raises(OSError, match="No space left"):
        training._fit_and_judge(Config(), MagicMock(), Path("run"))
    order.write_results.assert_called_once()
    order.seal.assert_not_called()
    order.write_board.side_effect = None
    training._fit_and_judge(Config(), MagicMock(), Path("run"))
    order.seal.assert_called_once()


def test_failed_write_of_results_keeps_the_previous_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A run without its metrics would count as unfinished, and could not be evaluated again."""
    for name in ("compute_metrics", "_choose_run_points"):
        monkeypatch.setattr(results, name, MagicMock())
    for name in ("read_run_facts", "read_thresholds"):
        monkeypatch.setattr(run_folder, name, MagicMock())
    full = MagicMock(side_effect=OSError(28, "No space left on device"))
    monkeypatch.setattr(results, "write_plots", full)
    for name in ("metrics.json", "predictions.csv"):
        (tmp_path / name).write_text("of before")
    with pytest.raises(EczemaError, match="No space left"):
        results.write_results(tmp_path, pd.DataFrame({"a": [1]}), Config(), split="test")
    for name in ("metrics.json", "predictions.csv"):
        assert (tmp_path / name).read_text() == "of before"


def test_run_resumes_only_with_the_data_that_it_has_learned_from(tmp_path: Path):
    data = load(save_data(tmp_path / "data", range(8))).describe()
    begun = run_folder.RunData(**dict(data), splits={"train": ["e0"], "test": ["e1"]})
    begun.write(tmp_path / "data.json")
    other = begun.model_copy(update={"splits": {"train": ["e1"], "test": ["e0"]}})
    run_folder.check_data(tmp_path, other)  # nothing has been learned yet
    (tmp_path / "checkpoints").mkdir()
    run_folder.check_data(tmp_path, begun)
    for changed in (other, begun.model_copy(update={"embeddings_fingerprint": "x"})):
        with pytest.raises(RunError, match="was started with other data"):
            run_folder.check_data(tmp_path, changed)
