"""What `explain` does: runs one case through a trained run, and explains the answer."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from eczema_tf.cli import say
from eczema_tf.data.clinical.fields import encode_fields, list_values
from eczema_tf.data.clinical.lines import join_columns, join_fields
from eczema_tf.data.dataset import Dataset
from eczema_tf.data.inputs import to_model_inputs
from eczema_tf.data.photo.upright import read_case_photos, read_upright
from eczema_tf.data.progress import track
from eczema_tf.data.text.offsets import TokenLocator
from eczema_tf.data.text.reading import TextReader, is_read, join_statuses
from eczema_tf.data.text.tokenizer import clean_text
from eczema_tf.errors import DataError
from eczema_tf.explanation.heatmaps import compute_heatmaps
from eczema_tf.explanation.maps import HEATMAP_METHOD
from eczema_tf.explanation.one_pass import explain_in_one_pass
from eczema_tf.files import replacing_file, replacing_folder, write_json, write_text
from eczema_tf.reporting.answer import format_answer
from eczema_tf.reporting.answer_html import find_full_colour, render_explanation_page
from eczema_tf.reporting.examples import ShownCase
from eczema_tf.reporting.facts import RunData
from eczema_tf.reporting.pictures import draw_overlay, shrink_photo
from eczema_tf.schema import PRESENT, STATUS_OK, TEXT_PRESENT
from eczema_tf.serving.answering import Question, answer_case
from eczema_tf.serving.cases import Outputs, Said
from eczema_tf.serving.graph.served_model import EMPTY_TEXT
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.inference import build_client_inputs, read_answers, read_undecided

OVERLAY, ANSWER, PAGE = "heatmap.png", "explanation.json", "explanation.html"


def explain(
    run_dir: Path,
    photos: Sequence[Path],
    text: str,
    clinical: Mapping[str, str] | None = None,
    *,
    out: Path,
    target: str,
    direction: str,
    image_method: str,
) -> str:
    """Explains one case, and writes `heatmap.png`, `explanation.json` and `explanation.html`.

    Each of several photos gets its own heatmap (`heatmap.png`, `heatmap-2.png` and so on), except
    those that are unlike all training photos.

    Args:
        run_dir: Folder of a finished `train`.
        photos: Files of the case, in any format that `upright_jpeg` reads.
        text: The text as the user wrote it; "" for none.
        clinical: Values of clinical fields, by name of the field.
        out: A new folder. It will contain the photo and the text.
        target: As in `Question`, like the next two.
        direction: "for" or "against".
        image_method: How the heatmap is made.

    Returns:
        The answer as lines for a terminal.

    Raises:
        RunError: If the folder contains no finished run.
        DataError: If there is nothing to explain, or something that this model cannot use.
        EczemaError: If `out` exists and is not empty, or the disk refuses.
    """
    question = Question(target, direction, image_method)
    upright = read_case_photos(photos)
    text = text.encode("utf-8", "replace").decode()  # half a surrogate pair, as tokenizers see it
    backend = RunBackend(run_dir, question)
    told = join_fields(clinical or {}, backend.said.clinical)
    answer = asyncio.run(answer_case(backend, upright, text, told))
    with replacing_folder(out) as aside:
        write_json(aside / ANSWER, answer.to_json())
        write_text(aside / PAGE, render_explanation_page(answer, upright, text))
        heatmaps = answer.explanation.heatmaps if answer.explanation else ()
        full = find_full_colour(heatmaps)
        if answer.image_used and not any(heatmaps):
            say("note: the image encoder gives one vector per photo, which has no places to show")
        for number, (jpeg, heatmap) in enumerate(zip(upright, heatmaps, strict=False), 1):
            if heatmap is None or not heatmap.known:
                continue
            label, ends = f"evidence {direction} {target}", ("none", "most")
            if full:
                label += ", log-odds per hundredth"
                ends = "0", f"{full:.2f}"
            shown = np.asarray(shrink_photo(jpeg))
            picture = draw_overlay(shown, heatmap.on_scale(full), label, ends)
            name = OVERLAY if number == 1 else f"heatmap-{number}.png"
            with replacing_file(aside / name) as file:
                file.write_bytes(picture)
    return f"{format_answer(answer)}\nwritten: {out / PAGE}"


def explain_cases(
    run_dir: Path, trained: run_folder.TrainedModel, dataset: Dataset, case_ids: Sequence[str]
) -> dict[str, ShownCase]:
    """Explains cases of a data set, for pages that show them.

    Args:
        run_dir: Folder of a finished `train`.
        trained: Its model.
        dataset: The data set with the cases.
        case_ids: Ids of the cases to explain.

    Returns:
        The shown cases by case id, without those of which the model can see nothing, such as photos
        that are embeddings.
    """
    backend, shown = RunBackend(run_dir, Question(), trained), {}
    sees_photos = "image" in trained.learned_from and dataset.embeddings is None
    reads_texts = "text" in trained.learned_from
    for case_id in track(case_ids, "shown cases", len(case_ids), slow=True):
        rows = dataset.table[dataset.table["case_id"] == case_id]
        files = [file for file in rows["image_file"] if file and sees_photos]
        photos = [read_upright(Path(file)) for file in files]
        cleaned = clean_text(tf.constant(list(rows["text"]))).numpy()
        readable = [text for text, left in zip(rows["text"], cleaned, strict=True) if left]
        text = readable[0] if readable and reads_texts else ""
        clinical = join_columns(rows, [field.name for field in trained.encoders.clinical])[0]
        if photos or text:
            answer = asyncio.run(answer_case(backend, photos, text, clinical))
            if answer.explanation is not None:
                shown[case_id] = ShownCase(answer.explanation, photos, text, len({*readable}))
    return shown


class RunBackend:
    """A trained run, explained by the offline methods."""

    def __init__(
        self, run_dir: Path, question: Question, trained: run_folder.TrainedModel | None = None
    ):
        """Loads a run.

        Args:
            run_dir: Folder of a finished `train`.
            question: What is explained, and how.
            trained: The run's model, if it is already loaded.

        Raises:
            RunError: If the folder contains no finished run.
        """
        self.question = question
        self._trained = trained or run_folder.load_model(run_dir)
        data = RunData.read(run_dir / run_folder.DATA)
        self.said = Said(
            run_folder.read_thresholds(run_dir),
            read_undecided(self._trained.model),
            data.notice,
            list_values(self._trained.encoders.clinical),
        )
        self._submodels = run_folder.take_apart(run_dir, self._trained)
        self._locate = TokenLocator(self._trained.tokenizer)
        self._describe_reading = TextReader(self._trained.tokenizer)

    async def ask(self, photos: Sequence[bytes], text: str, clinical: str = "") -> Outputs:
        """Answers and explains rows; see `serving.answering.Backend`.

        Raises:
            DataError: If there is nothing to explain, or something that this model cannot use.
        """
        self._check(any(photos), text)
        inputs = self._build_inputs(photos, text, clinical)
        if not any(photos) and not inputs[TEXT_PRESENT].any():
            raise DataError("--text: nothing readable in it")
        target, direction, image_method = self.question
        against = direction == "against"
        why = explain_in_one_pass(self._submodels, to_model_inputs(inputs), target, against=against)
        heatmaps = why.heatmap.numpy()
        if any(photos) and image_method != HEATMAP_METHOD:
            heatmaps = compute_heatmaps(
                self._submodels, inputs, target=target, method=image_method, against=against
            )
        cleaned = clean_text(tf.constant([text.encode("utf-8", "replace")] * len(photos)))
        starts, ends = self._locate(cleaned)
        return {
            **self._read(inputs, text, clinical, why.logits),
            "contribution": why.contributions.numpy(),
            "heatmap": heatmaps,
            "heatmap_scale": why.heatmap_scale.numpy(),
            "token_start": starts.numpy(),
            "token_end": ends.numpy(),
            "token_score": why.token_scores.numpy(),
            "clean_text": cleaned.numpy(),
        }

    async def answer(self, photos: Sequence[bytes], text: str, clinical: str = "") -> Outputs:
        """Answers without an explanation."""
        inputs = self._build_inputs(photos, text, clinical)
        # called without compiling, which takes ten times as long as answering
        logits = self._trained.model(to_model_inputs(inputs), training=False)
        return self._read(inputs, text, clinical, logits)

    def _build_inputs(
        self, photos: Sequence[bytes], text: str, clinical: str
    ) -> dict[str, np.ndarray]:
        rows = len(photos)
        return build_client_inputs(self._trained, photos, [text] * rows, [clinical] * rows)

    def _read(
        self,
        inputs: Mapping[str, np.ndarray],
        text: str,
        clinical: str,
        logits: Mapping[str, tf.Tensor],
    ) -> Outputs:
        image_used, text_used = (inputs[name] > 0.5 for name in PRESENT.values())
        written = tf.constant([text.encode("utf-8", "replace")] * len(image_used))
        reading = self._describe_reading(written, clean_text(written))
        status = tf.where(text_used, reading, EMPTY_TEXT if text else STATUS_OK)
        if fields := self._trained.encoders.clinical:
            line = tf.constant([clinical.encode("utf-8", "replace")] * len(image_used))
            status = join_statuses(status, encode_fields(line, fields)[1])
        return {
            **read_answers(logits, inputs, is_read(reading)),
            "image_used": image_used,
            "text_used": text_used,
            "status": status.numpy(),
        }

    def _check(self, photo: bool, text: str) -> None:
        if not photo and not text.strip():
            raise DataError("nothing to explain: give a photo, a text or both")
        for name, given in (("image", photo), ("text", bool(text.strip()))):
            if given and name not in self._trained.learned_from:
                raise DataError(
                    f"--{name}: this run was not trained on"
                    f" {'photos' if name == 'image' else 'texts'}; leave it out"
                )
        if photo and self._trained.encoders.image.kind == "precomputed":
            raise DataError(
                "--image: this run was trained on precomputed embeddings and cannot see a photo;"
                " leave it out"
            )
