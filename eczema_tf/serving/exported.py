"""An exported model: its folder, its metadata, and the SavedModel in this process.

The only place that loads a SavedModel of this project: `predict`, `serve`, `score` and the parity
check of `export` all ask it through `ExportedModel`.
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

# so many rows are run at once, and their texts, each padded to the longest, have so many bytes:
# attention is quadratic, and with MiniLM a text of 512 tokens takes 25 MB, as would each short one
# beside it; to explain one takes longer
STEP_ROWS = {SERVE: 16, EXPLAIN: 4}
STEP_ROWS |= {told: STEP_ROWS[name] for name, told in WITH_CLINICAL.items()}
STEP_BYTES = 4096
DECODED_AT_ONCE = 2  # photos, in the graph


class ExportMetadata(BaseModel):
    """What an export says of its model, beside the graph.

    Attributes:
        notice: What everyone must read before an answer.
        eczema_tf: Version of this package.
        thresholds: In (0, 1], by "image", "text" and "fusion"; from validation cases.
        undecided: Probabilities between which a case is undecided, likewise; for cases with several
            photos, since the graph decides on rows. None in older exports.
        labels: In the order of the outputs, by "consistency" and "severity".
        clinical: Of the clinical fields that the model is told, what each may be; none for a
            number. None where it is told none.
        uses: What it makes anything of, of "image" and "text". None in older exports.
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
        """What answers are read by."""
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
    """A SavedModel in this process, ready to be asked.

    Attributes:
        folder: Of the version that was loaded.
        version: Its number; 0 if the folder is not named by one.
        metadata: Thresholds, labels, notice and versions, as written at export.
    """

    def __init__(self, folder: str | Path, signatures: Sequence[str] | None = None):
        """Loads a version.

        Args:
            folder: A version's folder, or the folder of all versions (the newest is taken).
            signatures: Those that will be asked; None for all.

        Raises:
            EczemaError: If the folder holds no SavedModel of this project, or it lacks a signature.
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
        """Answers some rows, at most `STEP_ROWS` at a time, with texts of like lengths.

        Args:
            images: Upright JPEG or PNG bytes; b"" for none.
            texts: As long as `images`; "" for none.
            signature: "serving_default" or "explain"; where the model is told clinical fields,
                "clinical" or "explain_clinical", too.
            clinical: As long as `images`, such as "age=34; sex=female"; None for nothing. A
                signature that takes none does not look at it.
            is_wanted: Asked before each step whether anybody still waits for the answer.

        Returns:
            The signature's outputs by name, one row each; strings are bytes.

        Raises:
            DataError: If there is no row, these are not equally long, or no such signature was
                loaded.
            CancelledError: If the answer is no longer wanted.
        """
        import tensorflow as tf

        lengths = [len(images), len(texts), len(clinical or texts)]
        if len({*lengths}) > 1 or not lengths[0]:
            raise DataError(f"images, texts, clinical: allowed: as many, one or more; {lengths}")
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
                raise CancelledError("nobody waits for the answer any more")
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
        """Answers cases, a row each.

        Args:
            photos: Of each case a file or its bytes, or several; None for none.
            texts: Of each case; None for none.
            clinical: Of each case, what is known by name of the field; None for nothing. Any of the
                three may be a column of a table (`clinical` a table), and left out where no case
                has any.

        Returns:
            Probabilities `eczema`, `eczema_image`, `eczema_text`, `consistency_<what>` and
            `severity_<grade>`, NaN where their modality was not used; `image_used`, `text_used`,
            `known_image` and `known_text`, bool; `status`, and `decision`: "eczema", "not eczema"
            or "cannot tell", and its `reason`. The index is that of the table that was given.

        Raises:
            DataError: With every photo that cannot be read, and what else is wrong: what is given
                is not equally long, is no text, or is a field that the model is not told.
        """
        given = read_cases(photos, texts, clinical, self.metadata.clinical or ())
        # of no case, too: the columns are those of one, whose row is left out
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
        """Runs every signature, on long texts and photos as costly as any of `upright_jpeg`.

        The first run of a graph takes seconds, which should not be at the first client's expense.
        And TensorFlow keeps what memory it once had for tensors (with oneDNN: a pool that only
        grows): so the process has its full size from the start, and a lack of memory shows now and
        not under load.
        """
        from eczema_tf.data.photo.limits import SENT_MAX_PIXELS, SERVED_MAX_SIDE_PX

        # a narrow one, which is not decoded at a fraction of its size
        narrow_px = SERVED_MAX_SIDE_PX, SENT_MAX_PIXELS // SERVED_MAX_SIDE_PX
        photos = [encode_image(Image.new("RGB", narrow_px), "JPEG")] * DECODED_AT_ONCE
        for signature in self._signatures:
            self.run([*photos, b""], [*["warm"] * len(photos), "warm " * MAX_TOKENS], signature)


def plan_steps(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Plans which rows to run together, since each costs as much as the one with the longest text.

    Args:
        lengths: Of the rows' texts, in bytes.
        most: Rows in a step.

    Yields:
        Places of rows, the shortest text first; once, and none, if there are no rows.
    """
    step: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if step and (len(step) == most or (len(step) + 1) * lengths[row] > STEP_BYTES):
            yield step
            step = []
        step.append(row)
    yield step


def _load(folder: Path, signatures: Sequence[str] | None) -> Any:
    """Loads a SavedModel, or a copy of its graph without the signatures that are not asked."""
    import tensorflow as tf
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    from eczema_tf.model.harmless import find_harmful
    from eczema_tf.serving.graph.subset import keep_signatures

    saved = SavedModel.FromString((folder / GRAPH_FILE).read_bytes())
    if harmful := find_harmful(saved):
        raise EczemaError(
            f"{folder}: is no export of this project: has operations that may do more than compute,"
            f" such as touch files: {shorten(', '.join(harmful))}"
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
    """Puts the rows of all steps together; what is there for each token is padded with zeros."""
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
        f"{folder}: holds no SavedModel and no numbered versions; make one with `python -m"
        " eczema_tf.export`"
    )


def list_versions(folder: Path) -> list[Path]:
    """Returns the folders of all versions, the newest last; none if there is no such folder."""
    children = folder.iterdir() if folder.is_dir() else ()
    # one without a graph is being copied
    whole = (child for child in children if (child / GRAPH_FILE).is_file())
    return sorted((child for child in whole if is_version(child.name)), key=lambda v: int(v.name))
