"""Manifest rows become batches in a reproducible order, and the cache is never out of date."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from eczema_tf.config import AugmentConfig, DataConfig, PreprocessConfig
from eczema_tf.data.cache import ArrayCache, fingerprint, map_array, release_maps
from eczema_tf.data.clinical.fields import Field
from eczema_tf.data.dataset import load_dataset
from eczema_tf.data.inputs import Column, Inputs, load_inputs
from eczema_tf.data.photo.preprocess import preprocess_photo
from eczema_tf.data.photo.upright import upright_jpeg
from eczema_tf.data.pipeline import SmallTalk, build_evaluation_dataset, build_training_dataset
from eczema_tf.data.text.tokenizer import learn_tokenizer
from eczema_tf.errors import DataError, RunError
from eczema_tf.schema import (
    IMAGE,
    IMAGE_PRESENT,
    PADDING_MASK,
    POSITIVE_CLASS,
    TEXT_PRESENT,
    TOKEN_IDS,
)
from eczema_tf.workflows.audit import load_audited

SIZE_PX = 24


@pytest.fixture(scope="module")
def table(toy_manifest: Path) -> pd.DataFrame:
    return load_dataset(DataConfig(), toy_manifest).table


@pytest.fixture(scope="module")
def inputs(toy_manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return build(toy_manifest, tmp_path_factory.mktemp("cache"))


def build(manifest: Path, cache: Path) -> Inputs:
    dataset = load_dataset(DataConfig(), manifest)
    tokenizer = learn_tokenizer(list(dataset.table["text"]), 100, 16)
    return load_inputs(
        dataset,
        tokenizer=tokenizer,
        size_px=SIZE_PX,
        preprocess=PreprocessConfig(),
        cache=ArrayCache(cache),
        clinical=(),
    )


def test_presence_flags_match_the_manifest(inputs: Inputs, table: pd.DataFrame):
    batch = inputs.gather(np.arange(len(inputs)))
    np.testing.assert_array_equal(
        batch[IMAGE_PRESENT], (table["image_path"] != "").astype("float32")
    )
    np.testing.assert_array_equal(batch[TEXT_PRESENT], (table["text"] != "").astype("float32"))


def test_pixels_come_from_the_photo_of_the_row(inputs: Inputs, table: pd.DataFrame):
    rows = np.array([30, 3, 5])
    batch = inputs.gather(rows)
    for place, row in enumerate(rows):
        if row == 3:  # this row has no photo
            assert not batch[IMAGE][place].any()
            continue
        data = upright_jpeg(Path(table.at[row, "image_file"]).read_bytes())
        np.testing.assert_array_equal(
            batch[IMAGE][place], preprocess_photo(tf.constant(data), SIZE_PX, PreprocessConfig())
        )


def test_pair_has_the_photo_of_one_row_and_the_text_of_another(inputs: Inputs):
    photos, texts = np.array([30, 5, -1, 7]), np.array([0, 30, 8, -1])
    pairs = inputs.pair(photos, texts, photos)
    assert len(pairs) == 4
    assert list(pairs.present("image")) == [True, True, False, True]
    assert list(pairs.present("text")) == [True, True, True, False]
    paired, own = pairs.gather(np.array([0, 1])), inputs.gather(np.array([30, 5, 0, 30]))
    np.testing.assert_array_equal(paired[IMAGE], own[IMAGE][:2])
    np.testing.assert_array_equal(paired[TOKEN_IDS], own[TOKEN_IDS][2:])
    np.testing.assert_array_equal(paired[PADDING_MASK], own[PADDING_MASK][2:])


def test_keep_leaves_out_the_other_modality_and_its_notices(inputs: Inputs):
    inputs = replace(inputs, text_notices=np.full(len(inputs), "text: hardly known", object))
    told = inputs.keep({"text"})
    assert told.absent == {"image"}
    np.testing.assert_array_equal(told.present("text"), inputs.present("text"))
    np.testing.assert_array_equal(told.text_notices, inputs.text_notices)
    shown = inputs.keep(frozenset({"image"}))
    assert shown.absent == {"text"}
    assert not (shown.text_notices != "").any()
    rows, whole = np.arange(len(inputs)), inputs.keep(["image", "text"])
    for name, values in inputs.gather(rows).items():
        np.testing.assert_array_equal(whole.gather(rows)[name], values)


def test_tokens_are_cut_to_the_longest_text_of_the_batch(inputs: Inputs, table: pd.DataFrame):
    absent = np.flatnonzero(table["text"] == "")[:2]
    batch = inputs.gather(absent)
    assert batch[TOKEN_IDS].shape == (2, 2)  # [CLS] [SEP]
    assert batch[PADDING_MASK].all()
    longer = inputs.gather(np.array([0, *absent]))
    assert longer[TOKEN_IDS].shape[1] == longer[PADDING_MASK].sum(1).max() > 2


def test_evaluation_dataset_gives_the_rows_in_order(inputs: Inputs):
    rows = np.array([5, 0, 59, 3, 7, 7])
    batches = list(build_evaluation_dataset(inputs, rows, 4))
    assert [len(batch[IMAGE]) for batch in batches] == [4, 2]
    pixels = np.concatenate([batch[IMAGE] for batch in batches])
    np.testing.assert_array_equal(pixels, inputs.gather(rows)[IMAGE])


def training(
    inputs: Inputs, epochs: range, seed: int = 0, augment: AugmentConfig | None = None
) -> list:
    rows = np.arange(10, 40)
    number = {"row": np.arange(len(inputs))}
    dataset = build_training_dataset(
        inputs, number, number, rows, batch_size=8, epochs=epochs, seed=seed, augment=augment
    )
    return [(batch[IMAGE].numpy(), target["row"].numpy()) for batch, target, _ in dataset]


def test_training_dataset_gives_all_rows_in_a_new_order_each_epoch(inputs: Inputs):
    batches = training(inputs, range(2))
    assert [len(rows) for _, rows in batches] == [8, 8, 8, 6] * 2
    epochs = [np.concatenate([rows for _, rows in part]) for part in (batches[:4], batches[4:])]
    for order in epochs:
        np.testing.assert_array_equal(np.sort(order), np.arange(10, 40))
    assert (epochs[0] != epochs[1]).any()
    for pixels, rows in batches:
        np.testing.assert_array_equal(pixels, inputs.gather(rows)[IMAGE])


def test_resumed_epoch_has_the_same_batches_as_an_unbroken_run(inputs: Inputs):
    unbroken, resumed = (
        training(inputs, range(3), augment=AugmentConfig(rotation_deg=20.0, crop=0.1))[8:],
        training(inputs, range(2, 3), augment=AugmentConfig(rotation_deg=20.0, crop=0.1)),
    )
    for (pixels, rows), (pixels_again, rows_again) in zip(unbroken, resumed, strict=True):
        np.testing.assert_array_equal(rows, rows_again)
        np.testing.assert_array_equal(pixels, pixels_again)


def test_another_seed_gives_another_order(inputs: Inputs):
    assert any(
        (a[1] != b[1]).any()
        for a, b in zip(training(inputs, range(1)), training(inputs, range(1), seed=1), strict=True)
    )


def windows_of(inputs: Inputs) -> Inputs:
    """Returns inputs whose row k has two windows filled with k + 1."""
    values = np.repeat(np.arange(1.0, len(inputs) + 1, dtype="float32"), 4).reshape(-1, 2, 2)
    column = Column(values, np.arange(len(inputs)), "windows")
    columns = {"windows": column, IMAGE_PRESENT: inputs.columns[IMAGE_PRESENT]}
    return replace(inputs, columns=columns, token_columns={})


def talking(inputs: Inputs, share: float, epochs: range = range(4)) -> list[tuple]:
    number, talk = {"row": np.arange(len(inputs))}, SmallTalk("windows", np.array([3, 7]), share)
    dataset = build_training_dataset(
        inputs,
        number,
        number,
        np.arange(10, 40),
        batch_size=8,
        epochs=epochs,
        seed=0,
        small_talk=talk,
    )
    return [(batch["windows"].numpy(), target["row"].numpy()) for batch, target, _ in dataset]


def test_small_talk_is_appended_to_a_share_of_the_texts(inputs: Inputs):
    batches = talking(windows_of(inputs), 0.5)
    followed = np.concatenate([windows[:, 2, 0] for windows, _ in batches])
    for windows, rows in batches:
        assert windows.shape == (len(rows), 4, 2)
        np.testing.assert_array_equal(windows[:, :2, 0], np.repeat(rows[:, None] + 1, 2, axis=1))
        np.testing.assert_array_equal(windows[:, 3], windows[:, 2])
    assert set(followed) == {0, 4, 8}  # nothing, or the text of row 3 or row 7
    assert 0.3 < (followed > 0).mean() < 0.7


def test_small_talk_differs_by_epoch_and_is_the_same_after_resuming(inputs: Inputs):
    unbroken, resumed = (
        talking(windows_of(inputs), 0.5),
        talking(windows_of(inputs), 0.5, range(2, 4)),
    )
    for (windows, _), (again, _) in zip(unbroken[8:], resumed, strict=True):
        np.testing.assert_array_equal(windows, again)
    heard = {
        epoch: {
            row: talk
            for windows, rows in unbroken[4 * epoch : 4 * epoch + 4]
            for row, talk in zip(rows, windows[:, 2, 0], strict=True)
        }
        for epoch in range(2)
    }
    assert heard[0] != heard[1]


def test_cached_array_is_read_and_not_computed_again(tmp_path: Path):
    cache, wanted = ArrayCache(tmp_path), np.arange(12, dtype="float32").reshape(4, 3)
    first = cache.load_or_compute("a", "key", (4, 3), "float32", lambda: [wanted[:3], wanted[3:]])
    again = cache.load_or_compute(
        "a", "key", (4, 3), "float32", lambda: pytest.fail("computed again")
    )
    np.testing.assert_array_equal(first, wanted)
    np.testing.assert_array_equal(again, wanted)


def test_cache_that_keeps_nothing_gives_the_array_and_leaves_no_file(tmp_path: Path):
    wanted = np.arange(12, dtype="float32").reshape(4, 3)
    cache = ArrayCache(tmp_path, keep=False)
    found = cache.load_or_compute("a", "key", (4, 3), "float32", lambda: [wanted])
    assert not list(tmp_path.iterdir())
    np.testing.assert_array_equal(found, wanted)

    def keep_meanwhile() -> list[np.ndarray]:  # as another run in the same folder might do
        ArrayCache(tmp_path).load_or_compute("a", "key", (4, 3), "float32", lambda: [wanted])
        return [wanted]

    cache.load_or_compute("a", "key", (4, 3), "float32", keep_meanwhile)
    assert [path.name for path in tmp_path.iterdir()] == ["a-key.npy"]


def measure_mapped_kb() -> int:
    return int(re.search(r"RssFile:\s+(\d+)", Path("/proc/self/status").read_text())[1])


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="needs Linux's /proc"
)


@needs_proc
def test_released_maps_hold_no_memory_and_stay_readable(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.ones(8_000_000, "float32"))  # 32 MB
    mapped = map_array(tmp_path / "a.npy")
    assert mapped.sum() == 8_000_000
    held = measure_mapped_kb()
    release_maps()
    assert held - measure_mapped_kb() > 25_000
    assert mapped.sum() == 8_000_000


@needs_proc
def test_batches_leave_no_mapped_features_in_memory(inputs: Inputs, tmp_path: Path):
    np.save(tmp_path / "a.npy", np.ones((len(inputs), 150_000), "float32"))  # 36 MB
    features = Column(map_array(tmp_path / "a.npy"), np.arange(len(inputs)), "")
    wide = replace(inputs, columns={"image_features": features})
    batches = iter(build_evaluation_dataset(wide, np.arange(len(inputs)), 4))
    read, before = next(batches)["image_features"].numpy().sum(), measure_mapped_kb()
    read += sum(batch["image_features"].numpy().sum() for batch in batches)
    assert read == 150_000 * len(inputs)
    assert measure_mapped_kb() - before < 10_000


def test_array_is_mapped_again_only_when_its_file_has_changed(tmp_path: Path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros(3))
    first = map_array(path)
    assert map_array(path) is first
    np.save(path.with_name("b.npy"), np.ones(3))
    path.with_name("b.npy").replace(path)
    np.testing.assert_array_equal(map_array(path), np.ones(3))
    np.testing.assert_array_equal(first, np.zeros(3))
    path.unlink()
    with pytest.raises(FileNotFoundError):
        map_array(path)


@pytest.mark.parametrize("blocks", [[2], [3, 2]])
def test_wrong_number_of_rows_is_an_error_and_leaves_no_file(tmp_path: Path, blocks: list[int]):
    with pytest.raises(RunError):
        ArrayCache(tmp_path).load_or_compute(
            "a", "key", (4, 3), "float32", lambda: [np.zeros((rows, 3)) for rows in blocks]
        )
    assert not list(tmp_path.iterdir())


def test_full_disk_is_reported_and_leaves_no_file(tmp_path: Path):
    """A process that may write at most 1 MB simulates a disk with that much space left."""
    code = (
        "import resource, signal, sys, numpy as np\n"
        "from eczema_tf.data.cache import ArrayCache\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "block = np.ones((1000, 1000), 'uint8')\n"
        "ArrayCache(sys.argv[1]).load_or_compute('a', 'k', (2000, 1000), 'uint8',"
        " lambda: [block, block])"
    )
    failed = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True
    )
    assert failed.returncode == 1  # not killed by a bus error
    assert "a-k.npy: cannot be written: File too large; free some space" in failed.stderr
    assert not list(tmp_path.iterdir())


def test_array_of_a_damaged_cache_file_is_computed_again(tmp_path: Path):
    cache = ArrayCache(tmp_path)
    cache.load_or_compute("a", "key", (4,), "float32", lambda: [np.ones(4)])
    (tmp_path / "a-key.npy").write_bytes(b"damaged")
    np.testing.assert_array_equal(
        cache.load_or_compute("a", "key", (4,), "float32", lambda: [np.full(4, 2)]), 2
    )


def test_fingerprints_differ_by_content_shape_type_and_boundaries():
    parts = [
        ("ab", "c"),
        ("a", "bc"),
        (np.zeros(4),),
        (np.zeros((2, 2)),),
        (np.zeros(4, "float32"),),
        (["a"],),
        ([],),
    ]
    assert len({fingerprint(*part) for part in parts}) == len(parts)


def test_changed_photo_is_not_taken_from_the_cache(toy_manifest: Path, tmp_path: Path):
    copy = tmp_path / "toy"
    (copy / "photos").mkdir(parents=True)
    for file in toy_manifest.parent.rglob("*.*"):
        (copy / file.relative_to(toy_manifest.parent)).write_bytes(file.read_bytes())
    before = build(copy / "manifest.csv", tmp_path / "cache").gather(np.array([0, 1]))[IMAGE]
    (copy / "photos" / "0.png").write_bytes((copy / "photos" / "1.png").read_bytes())
    after = build(copy / "manifest.csv", tmp_path / "cache").gather(np.array([0, 1]))[IMAGE]
    np.testing.assert_array_equal(before[1], after[1])
    np.testing.assert_array_equal(after[0], after[1])


def test_truncated_photo_is_reported_with_its_line_or_left_out(
    toy_manifest: Path, tmp_path: Path, capsys
):
    (tmp_path / "photos").mkdir()
    (tmp_path / "manifest.csv").write_text(
        "example_id,image_path,text,eczema,Ort\na,photos/0.png,,1,\nb,,itchy,0,arm\n"
    )
    (tmp_path / "photos" / "0.png").write_bytes(
        (toy_manifest.parent / "photos" / "0.png").read_bytes()[:900]
    )
    with pytest.raises(DataError, match=r"manifest\.csv:2: image_path"):
        load_dataset(DataConfig(), tmp_path / "manifest.csv")
    dataset = load_audited(DataConfig(skip_bad_rows=True), tmp_path / "manifest.csv").dataset
    assert "note: bad rows left out: 1; for the reasons see" in (printed := capsys.readouterr().err)
    assert str(tmp_path / "manifest.rejected.csv") in printed
    assert "note: columns that are not used: Ort\n" in printed
    assert list(dataset.table["example_id"]) == ["b"]
    assert dataset.describe().rejected_rows == 1


def test_only_unused_columns_are_noted(tmp_path: Path, capsys):
    path, config = tmp_path / "m.csv", DataConfig(clinical={"age": "number"})
    columns = f"example_id,text,eczema,age,findings,{POSITIVE_CLASS},Ort"
    path.write_text(f"{columns}\na,dry,1,3,none,acne,arm\nb,red,0,4,none,acne,leg\n")
    load_audited(config, path)
    assert "columns that are not used: Ort\n" in (printed := capsys.readouterr().err)
    assert "left out" not in printed
    (tmp_path / "dataset.json").write_text("{}")  # written by `prepare`, which knows its columns
    load_audited(config, path)
    assert "not used" not in capsys.readouterr().err


def test_unusable_clinical_values_are_counted_but_not_empty_ones(tmp_path: Path, capsys):
    path, site = tmp_path / "m.csv", Field(name="site", shares={"arm": 1.0})
    path.write_text(
        "example_id,text,eczema,site\na,dry,1,leg\nb,red,0,leg\nc,red,0,arm\nd,red,0,\n"
    )
    load_inputs(
        load_dataset(DataConfig(clinical={"site": "category"}), path),
        tokenizer=learn_tokenizer(["dry", "red"], 100, 16),
        size_px=SIZE_PX,
        preprocess=PreprocessConfig(),
        cache=ArrayCache(tmp_path / "cache"),
        clinical=(site,),
    )
    assert "note: 2 rows: clinical: not all of it can be used, only" in capsys.readouterr().err
