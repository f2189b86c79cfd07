"""What `explain` does: one photo and one text through a trained run, and why it answers so."""

import asyncio
from pathlib import Path

import numpy as np
import tensorflow as tf

from eczema_tf.data.inputs import to_model_inputs
from eczema_tf.data.photo.upright import upright_jpeg
from eczema_tf.data.text.offsets import TokenLocator
from eczema_tf.data.text.reading import TextReader, is_read
from eczema_tf.data.text.tokenizer import clean_text
from eczema_tf.errors import DataError
from eczema_tf.explanation.heatmaps import compute_heatmaps
from eczema_tf.explanation.submodels import Submodels
from eczema_tf.explanation.token_scores import TOKEN_METHODS
from eczema_tf.files import replacing_file, replacing_folder, write_json, write_text
from eczema_tf.model.decision import compute_decision
from eczema_tf.model.losses import compute_probabilities
from eczema_tf.reporting.answer import format_answer, read_answer
from eczema_tf.reporting.answer_html import render_explanation_page
from eczema_tf.reporting.facts import RunData
from eczema_tf.reporting.pictures import draw_overlay, shrink_photo
from eczema_tf.schema import DECISIONS, IMAGE_PRESENT, STATUS_OK, TEXT_PRESENT, TOKEN_IDS
from eczema_tf.serving.answering import Findings, Question, ScoredTokens, answer_case
from eczema_tf.workflows import run_folder
from eczema_tf.workflows.inference import build_client_inputs

OVERLAY, ANSWER, PAGE = "heatmap.png", "explanation.json", "explanation.html"


def explain(
    run_dir: Path,
    photo: bytes,
    text: str,
    *,
    out: Path,
    target: str,
    direction: str,
    image_method: str,
    text_method: str,
) -> str:
    """Explains one case, and writes `heatmap.png`, `explanation.json` and `explanation.html`.

    Args:
        run_dir: Of a finished `train`.
        photo: In any format that `upright_jpeg` reads; b"" for none.
        text: As the user wrote it; "" for none.
        out: A new folder. It will hold the photo and the text.
        target: As in `Question`, and so are the others.
        direction: "for" or "against".
        image_method: Of the heatmap.
        text_method: Of the words' scores.

    Returns:
        The answer as lines for a terminal.

    Raises:
        RunError: If the folder holds no finished run.
        DataError: If there is nothing to explain, or something that this model cannot use.
        EczemaError: If `out` exists and is not empty, or the disk refuses.
    """
    question = Question(target, direction, image_method, text_method)
    upright = upright_jpeg(photo) if photo else b""
    answer = asyncio.run(answer_case(RunBackend(run_dir, question), upright, text))
    with replacing_folder(out) as aside:
        write_json(aside / ANSWER, answer.to_json())
        write_text(aside / PAGE, render_explanation_page(answer, upright, text))
        if answer.explanation and (heatmap := answer.explanation.heatmap):
            picture = draw_overlay(
                np.asarray(shrink_photo(upright)),
                np.array(heatmap.grid),
                f"evidence {direction} {target}",
            )
            with replacing_file(aside / OVERLAY) as file:
                file.write_bytes(picture)
    return f"{format_answer(answer)}\nwritten: {out / PAGE}"


class RunBackend:
    """A trained run, explained by the offline methods."""

    def __init__(self, run_dir: Path, question: Question):
        """Loads a run.

        Args:
            run_dir: Of a finished `train`.
            question: What is explained, and how.

        Raises:
            RunError: If the folder holds no finished run.
        """
        self.question = question
        self._trained = run_folder.load_model(run_dir)
        self._thresholds: dict[str, float] = run_folder.read_thresholds(run_dir)
        data = RunData.read(run_dir / run_folder.DATA)
        self._trained_on, self._notice = frozenset(data.trained_on or ()), data.notice
        self._submodels = Submodels(self._trained.model)
        self._locate = TokenLocator(self._trained.tokenizer)
        self._describe_reading = TextReader(self._trained.tokenizer)

    async def ask(self, photo: bytes, text: str) -> Findings:
        """Answers an upright JPEG and a text; see `serving.answering.Backend`.

        Raises:
            DataError: If there is nothing to explain, or something that this model cannot use.
        """
        self._check(photo, text)
        written = tf.constant([text.encode("utf-8", "replace")])
        cleaned = clean_text(written)
        text_used = bool(cleaned.numpy()[0])
        if not photo and not text_used:
            raise DataError("--text: nothing readable in it")
        inputs = build_client_inputs(self._trained, [photo], [text])

        # the row as it is, without the text, without the photo, without both
        rows = {name: np.repeat(value, 4, axis=0) for name, value in inputs.items()}
        rows[TEXT_PRESENT] *= np.array([1, 0, 1, 0], "float32")
        rows[IMAGE_PRESENT] *= np.array([1, 1, 0, 0], "float32")
        # called and not compiled: compiling takes ten times as long as answering four rows
        logits = {
            head: value.numpy()
            for head, value in self._trained.model(to_model_inputs(rows), training=False).items()
        }
        outputs = {
            name: np.asarray(value)[0].tolist()
            for name, value in compute_probabilities(logits).items()
        }
        reading = self._describe_reading(written, cleaned)
        status = reading.numpy()[0].decode() if text_used else STATUS_OK
        used = {"image_used": bool(photo), "text_used": text_used, "status": status}
        decided = compute_decision(logits, rows, is_read(reading))
        known = {name: bool(decided[name][0]) for name in ("known_image", "known_text")}
        outputs |= {**used, **known, "decision": DECISIONS[int(decided["decision"][0])]}
        target, direction, image_method, _ = self.question
        heatmap = None
        if photo:
            heatmap = compute_heatmaps(
                self._submodels,
                inputs,
                target=target,
                method=image_method,
                against=direction == "against",
            )[0]
        return Findings(
            answer=read_answer(outputs, self._thresholds, self._notice),
            logits=logits["eczema"][:, 0],
            heatmap=heatmap,
            tokens=self._score_tokens(inputs, cleaned) if text_used else None,
        )

    def _check(self, photo: bytes, text: str) -> None:
        if not photo and not text.strip():
            raise DataError("nothing to explain: give a photo, a text or both")
        for name, given in (("image", bool(photo)), ("text", bool(text.strip()))):
            if given and name not in self._trained_on:
                raise DataError(
                    f"--{name}: this run was not trained on"
                    f" {'photos' if name == 'image' else 'texts'}; leave it out"
                )
        if photo and self._trained.encoders.image.kind == "precomputed":
            raise DataError(
                "--image: this run was trained on precomputed embeddings and cannot see a photo;"
                " leave it out"
            )

    def _score_tokens(self, inputs: dict[str, np.ndarray], cleaned: tf.Tensor) -> ScoredTokens:
        score = TOKEN_METHODS[self.question.text_method]
        scored = score(self._submodels, inputs, target=self.question.target)
        starts, ends = (offsets.numpy()[0].tolist() for offsets in self._locate(cleaned))
        vocabulary = self._trained.tokenizer.vocabulary
        return ScoredTokens(
            starts=starts,
            ends=ends,
            scores=scored.scores[0],
            continues=[vocabulary[token].startswith("##") for token in inputs[TOKEN_IDS][0]],
            logit_difference=float(scored.difference[0]),
            completeness_error=float(scored.completeness_error[0]),
        )
