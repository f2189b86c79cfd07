"""An exported model: its folder, its metadata, and the SavedModel in this process.

This is the only module that loads a SavedModel of this project: `predict`, `serve`, `score` and the
parity check of `export` all use `ExportedModel`.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from google.protobuf.message import DecodeError
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from eczema_tf.config import MAX_TOKENS
from eczema_tf.data.checksums import check_checksums
from eczema_tf.data.photo.files import encode_image
from eczema_tf.errors import DataError, EczemaError, shorten
from eczema_tf.evaluation.predictions import FLAGS
from eczema_tf.files import is_version, write_json
from eczema_tf.reporting.decisions import give_reason
from eczema_tf.schema import MODALITIES
from eczema_tf.serving.cases import Said, plain_row, pool_rows
from eczema_tf.serving.columns import arrange_answers
from eczema_tf.serving.given import Fields, Photos, read_cases
from eczema_tf.serving.graph.signature import (
    EXPLAIN,
    SERVE,
    WITH_CLINICAL,
    list_inputs,
    list_signatures,
)

METADATA_FILE = Path("assets.extra") / "eczema.json"
GRAPH_FILE = "saved_model.pb"
FILES = (GRAPH_FILE, "fingerprint.pb", "variables", "assets", "assets.extra")

# The most rows to run at once, and the most bytes that their texts may have, each padded to the
# longest: attention is quadratic, and with MiniLM a text of 512 tokens takes 25 MB, as would each
# short one in the same step. Explaining a row takes longer.
STEP_ROWS = {SERVE: 16, EXPLAIN: 4}
STEP_ROWS |= {told: STEP_ROWS[name] for name, told in WITH_CLINICAL.items()}
STEP_BYTES = 4096
DECODED_AT_ONCE = 2  # photos, in the graph


class ExportMetadata(BaseModel):
    """What an export says about its model, in addition to the graph.

    Attributes:
        notice: What everyone must read before an answer.
        eczema_tf: Version of this package.
        thresholds: In (0, 1], by "image", "text" and "fusion"; from validation cases.
        undecided: Probabilities between which a case is undecided, by the same three. They are for
            cases with several photos, since the graph decides on rows. None in older exports.
        labels: In the order of the outputs, by "consistency" and "severity".
        clinical: The values that each clinical field of the model may have; none for a number. None
            if the model takes no clinical fields.
        uses: Which of "image" and "text" the model uses. None in older exports.
        environment: Versions of Python and of the packages that trained the model, and its devices.
    """

    model_config = ConfigDict(frozen=True)

    notice: str
    eczema_tf: str
    thresholds: dict[str, float]
    undecided: dict[str, tuple[float, float]] | None = None
    labels: dict[str, tuple[str, ...]]
    clinical: dict[str, tuple[str, ...]] | None = None
    uses: tuple[str, ...] | None = None
    environment: dict[str, object]

    @property
    def signatures(self) -> tuple[str, ...]:
        """The names of the signatures."""
        return list_signatures(self.clinical is not None)

    @property
    def said(self) -> Said:
        """What is needed to read the model's answers."""
        clinical, uses = self.clinical or {}, self.uses or MODALITIES
        return Said(self.thresholds, self.undecided, self.notice, clinical, uses)

    @classmethod
    def read(cls, folder: Path) -> "ExportMetadata":
        """Reads the metadata of an export.

        Args:
            folder: A version's folder, or the folder of all versions (the newest is taken).

        Raises:
            EczemaError: If there is no export, or its metadata file is missing or damaged.
        """
        path = find_version(folder) / METADATA_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise EczemaError(f"{path}: missing or damaged; export the model again") from error

    def write(self, folder: Path) -> None:
        """Writes the metadata into a version's folder."""
        write_json(folder / METADATA_FILE, self.model_dump(mode="json", exclude_none=True))


class ExportedModel:
    """A SavedModel in this process, ready to answer.

    Attributes:
        folder: Of the version that was loaded.
        version: Its number; 0 if the folder's name is not a version number.
        metadata: Thresholds, labels, notice and versions, as written at export.
    """

    def __init__(self, folder: str | Path, signatures: Sequence[str] | None = None):
        """Loads a version.

        Args:
            folder: A version's folder, or the folder of all versions (the newest is taken).
            signatures: Those that will be used; None for all.

        Raises:
            EczemaError: If the folder has no SavedModel of this project, or it lacks a signature.
        """
        import tensorflow_text  # noqa: F401  (registers the tokenizer's ops)

        self.folder = find_version(Path(folder))
        self.version = int(self.folder.name) if is_version(self.folder.name) else 0
        check_checksums(self.folder, FILES)
        self.metadata = ExportMetadata.read(self.folder)
        try:
            asked = self.metadata.signatures if signatures is None else signatures
            self._model = _load(self.folder, signatures)  # must outlive its signatures
            self._signatures = {name: self._model.signatures[name] for name in asked}
        except (OSError, ValueError, LookupError, DecodeError) as error:
            raise EczemaError(
                f"{folder}: cannot be loaded as a SavedModel: {str(error).splitlines()[0]}"
            ) from error

    def run(
        self,
        images: Sequence[bytes],
        texts: Sequence[str],
        signature: str = SERVE,
        clinical: Sequence[str] | None = None,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> dict[str, np.ndarray]:
        """Answers some rows, at most `STEP_ROWS` at a time, with texts of similar lengths.

        Args:
            images: Upright JPEG or PNG bytes; b"" for none.
            texts: As long as `images`; "" for none.
            signature: "serving_default" or "explain"; if the model takes clinical fields, also
                "clinical" or "explain_clinical".
            clinical: As long as `images`, such as "age=34; sex=female"; None for nothing. A
                signature without clinical fields ignores it.
            is_wanted: Called before each step; says whether anybody still waits for the answer.

        Returns:
            The signature's outputs by name, one row each; strings are bytes.

        Raises:
            DataError: If there is no row, if images, texts and clinical are not equally long, or if
                no such signature was loaded.
            CancelledError: If the answer is no longer wanted.
        """
        import tensorflow as tf

        lengths = [len(images), len(texts), len(clinical or texts)]
        if len({*lengths}) > 1 or not lengths[0]:
            raise DataError(
                f"images, texts, clinical: must be equally long and not empty; received {lengths}"
            )
        if signature not in self._signatures:
            there = ", ".join(self._signatures)
            raise DataError(f"signature: allowed: {there}; received {signature!r}")
        columns = {
            "image": list(images),
            "text": [text.encode("utf-8", "replace") for text in texts],
            "clinical": [line.encode("utf-8", "replace") for line in clinical or [""] * len(texts)],
        }
        inputs = list_inputs(signature)
        steps = list(plan_steps([*map(len, columns["text"])], STEP_ROWS[signature]))
        answers = []
        for rows in steps:
            if not is_wanted():
                raise CancelledError("nobody is waiting for the answer any more")
            outputs = self._signatures[signature](
                **{
                    name: tf.constant([columns[name][row] for row in rows], dtype)
                    for name, dtype in inputs.items()
                }
            )
            answers.append({name: value.numpy() for name, value in outputs.items()})
        as_asked = np.argsort(np.concatenate(steps))
        return {name: _join([step[name] for step in answers])[as_asked] for name in answers[0]}

    def predict(
        self,
        photos: Sequence[Photos] | None = None,
        texts: Sequence[str | None] | None = None,
        clinical: Sequence[Fields] | pd.DataFrame | None = None,
    ) -> pd.DataFrame:
        """Answers cases, one row for each.

        Args:
            photos: For each case a file or its bytes, or several; None for none.
            texts: One for each case; None for none.
            clinical: For each case, the known values by name of the field; None for nothing. Any of
                the three may be a column of a table (`clinical` a table), and may be left out if no
                case has any.

        Returns:
            Probabilities `eczema`, `eczema_image`, `eczema_text`, `consistency_<what>` and
            `severity_<grade>`, NaN where their modality was not used; `image_used`, `text_used`,
            `known_image` and `known_text`, bool; `status`, and `decision`: "eczema", "not eczema"
            or "cannot tell", and its `reason`. The index is that of the table that was given.

        Raises:
            DataError: Lists every photo that cannot be read and everything else that is wrong:
                arguments of different lengths, a text that is not a string, or a field that the
                model does not take.
        """
        given = read_cases(photos, texts, clinical, self.metadata.clinical or ())
        # without any case, one empty case gives the columns, and its row is left out
        asked = list(zip(*given[:3], strict=True)) or [([], "", "")]
        rows = [
            (case, photo, text, told)
            for case, (several, text, told) in enumerate(asked)
            for photo in several or [b""]
        ]
        cases, images, written, told = zip(*rows, strict=True)
        answers = self.run(images, written, WITH_CLINICAL[SERVE] if any(told) else SERVE, told)
        outputs = pool_rows(answers, cases, self.metadata.undecided)
        table = pd.DataFrame(arrange_answers(outputs, [""] * len(asked)))
        table["reason"] = [
            give_reason(plain_row(outputs, number), len(several))
            for number, (several, _, _) in enumerate(asked)
        ]
        table = table.astype(dict.fromkeys(FLAGS, bool)).head(len(given.index))
        return table.set_axis(given.index)

    def warm_up(self) -> None:
        """Runs every signature, on long texts and the costliest photos that `upright_jpeg` makes.

        The first run of a graph takes seconds, which the first client should not have to wait. And
        TensorFlow keeps the memory that it once used for tensors (with oneDNN: a pool that only
        grows). The process therefore has its full size from the start, and a lack of memory shows
        now and not under load.
        """
        from eczema_tf.data.photo.limits import SENT_MAX_PIXELS, SERVED_MAX_SIDE_PX

        # a narrow photo, which is not decoded at a fraction of its size
        narrow_px = SERVED_MAX_SIDE_PX, SENT_MAX_PIXELS // SERVED_MAX_SIDE_PX
        photos = [encode_image(Image.new("RGB", narrow_px), "JPEG")] * DECODED_AT_ONCE
        for signature in self._signatures:
            self.run([*photos, b""], [*["warm"] * len(photos), "warm " * MAX_TOKENS], signature)


def plan_steps(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Plans which rows to run together, since each costs as much as the one with the longest text.

    Args:
        lengths: Of the rows' texts, in bytes.
        most: The most rows in a step.

    Yields:
        Indices of rows, the shortest text first; one empty list if there are no rows.
    """
    step: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if step and (len(step) == most or (len(step) + 1) * lengths[row] > STEP_BYTES):
            yield step
            step = []
        step.append(row)
    yield step


def _load(folder: Path, signatures: Sequence[str] | None) -> Any:
    """Loads a SavedModel, or a copy of its graph without the signatures that are not needed."""
    import tensorflow as tf
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    from eczema_tf.model.harmless import find_harmful
    from eczema_tf.serving.graph.subset import keep_signatures

    saved = SavedModel.FromString((folder / GRAPH_FILE).read_bytes())
    if harmful := find_harmful(saved):
        raise EczemaError(
            f"{folder}: not an export of this project: it has operations that may do more than"
            f" compute, such as access files: {shorten(', '.join(harmful))}"
        )
    if signatures is None:
        return tf.saved_model.load(str(folder))
    saved = keep_signatures(saved, signatures)
    with tempfile.TemporaryDirectory() as place:
        for name in ("assets", "variables"):
            (Path(place) / name).symlink_to((folder / name).resolve())
        (Path(place) / GRAPH_FILE).write_bytes(saved.SerializeToString())
        return tf.saved_model.load(place)


def _join(values: list[np.ndarray]) -> np.ndarray:
    """Joins the rows of all steps; values that exist for each token are padded with zeros."""
    if len(values) == 1:
        return values[0]
    if values[0].ndim == 2:
        widest = max(value.shape[1] for value in values)
        values = [np.pad(value, ((0, 0), (0, widest - value.shape[1]))) for value in values]
    return np.concatenate(values)


def find_version(folder: Path) -> Path:
    """Returns the newest version's folder.

    Args:
        folder: Of a SavedModel, or of numbered versions.

    Raises:
        EczemaError: If there is neither.
    """
    if (folder / GRAPH_FILE).is_file():
        return folder
    if versions := list_versions(folder):
        return versions[-1]
    raise EczemaError(
        f"{folder}: contains no SavedModel and no numbered versions; make one with `python -m"
        " eczema_tf.export`"
    )


def list_versions(folder: Path) -> list[Path]:
    """Returns the folders of all versions, the newest last; none if there is no such folder."""
    children = folder.iterdir() if folder.is_dir() else ()
    # a version without a graph is still being copied
    whole = (child for child in children if (child / GRAPH_FILE).is_file())
    return sorted((child for child in whole if is_version(child.name)), key=lambda v: int(v.name))
