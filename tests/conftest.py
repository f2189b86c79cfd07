"""Fixtures that test files share: real data if there are any, models, and a toy data set."""

import fcntl
import gc
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings
from PIL import Image

from eczema_tf.cli import GARBAGE_THRESHOLDS

settings.register_profile("eczema_tf", deadline=None)  # speed is not under test
settings.load_profile("eczema_tf")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
SHARED = Path(__file__).parents[2] / "shared"


# files that take minutes, the longest first
COSTLY = ["test_variants.py", "test_main_job.py", "test_attribution.py", "test_explanations.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts costly files first, so that no process waits for another at the end."""
    ranks = {name: rank for rank, name in enumerate(COSTLY)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(COSTLY)))  # the rest keeps its order


def pytest_collection_finish() -> None:
    """Makes the garbage collector skip imported objects, which live to the end.

    Each export calls it several times; otherwise, it runs as rarely as in commands.
    """
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data and presets that developers keep next to the repository."""
    if not SHARED.is_dir():
        pytest.skip(
            "needs ../shared (real data and pretrained presets), which is not part of the"
            " repository"
        )
    return SHARED


@pytest.fixture(scope="session")
def toy_manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 cases: eczema is a red square in the photo and the word "itchy" in the text.

    Some cases lack a photo, some a text, some a label.
    """
    folder = tmp_path_factory.mktemp("toy")
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    rows = []
    for case in range(60):
        eczema = case % 2
        pixels = rng.integers(60, 120, (40, 52, 3)).astype("uint8")
        pixels[8:30, 10:40, 0] = 250 if eczema else 60
        Image.fromarray(pixels).save(folder / "photos" / f"{case}.png")
        rows.append(
            {
                "example_id": f"row{case}",
                "image_path": "" if case % 10 == 3 else f"photos/{case}.png",
                "text": (
                    ""
                    if case % 10 == 4
                    else (
                        f"my skin is {'itchy' if eczema else 'spotty'} since {rng.integers(2, 9)}"
                        " days"
                    )
                ),
                "eczema": "" if case % 20 == 7 else eczema,
                "consistency": ["other", "eczema"][eczema] if case % 10 != 4 else "",
                "severity": ["mild", "moderate", "severe", ""][case % 4],
            }
        )
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a folder that all test processes share; tests only read it."""
    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    shared.mkdir(exist_ok=True)

    def make(name: str, fill: Callable[[Path], None]) -> Path:
        folder, filled = shared / name, shared / f"{name}.filled"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not filled.exists():
                shutil.rmtree(folder, ignore_errors=True)  # left by a process that failed
                folder.mkdir()
                fill(folder)
                filled.touch()
        return folder

    return make


@pytest.fixture(scope="session")
def small_export(make_once: Callable[..., Path]) -> Path:
    """A small real model with both signatures, as version 3."""
    from test_serving import save_small_export

    return make_once("small_export", lambda folder: save_small_export(folder / "3")) / "3"


@pytest.fixture(scope="session")
def told_export(make_once: Callable[..., Path]) -> Path:
    """A small real model that takes an age and a sex, as version 1."""
    from test_clinical import save_export

    return make_once("told_export", lambda folder: save_export(folder / "1")) / "1"


@pytest.fixture(scope="session")
def main_job(make_once: Callable[..., Path]) -> Path:
    """Output of the main job on `configs/smoke.yaml`: `synthetic`, `run`, `export`, `cache`."""
    from test_main_job import do_main_job

    return make_once("main_job", do_main_job)


@pytest.fixture(scope="session")
def installed_weights() -> Callable[[str], Path]:
    """Finds packaged weights by the name of their preset, or skips the test."""
    from eczema_tf.model.weights import packaged

    def find(name: str) -> Path:
        folder = packaged._find_package(packaged.REGISTRY[name])
        if folder is None:
            pytest.skip(f"needs {packaged.REGISTRY[name].package}: {packaged.HOW_TO_INSTALL}")
        return folder

    return find


@pytest.fixture(scope="module")
def without_board() -> Iterator[None]:
    """Saves seconds per run: `train` writes nothing for TensorBoard, which other tests cover."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eczema_tf.workflows.train.write_board", lambda *_: None)
        yield


@pytest.fixture
def build_tiny_bert() -> Callable[..., Any]:
    """Builds an untrained BERT of 8 channels, for at most 16 tokens."""
    import keras_hub

    def build(layers: int = 1, vocabulary: int = 20) -> Any:
        return keras_hub.models.BertBackbone(
            vocabulary_size=vocabulary,
            num_layers=layers,
            num_heads=2,
            hidden_dim=8,
            intermediate_dim=16,
            max_sequence_length=16,
        )

    return build


class Room:
    """Counts how many threads are in it at once; `most` is the largest number so far."""

    def __init__(self) -> None:
        self._lock, self._inside, self.most = threading.Lock(), 0, 0

    def visit(self) -> None:
        """Enters, waits so that others can enter too, if they may, and leaves."""
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)
        time.sleep(0.02)
        with self._lock:
            self._inside -= 1


@pytest.fixture
def room() -> Room:
    return Room()
