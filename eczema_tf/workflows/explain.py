"""What `explain` does: one photo and one text through a trained run, and why it answers so."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from eczema_tf.data.inputs import to_model_inputs
from eczema_tf.data.photo.upright import upright_jpeg
from eczema_tf.data.text.offsets import TokenLocator
from eczema_tf.data.text.reading import TextReader, is_read
from eczema_tf.data.text.tokenizer import clean_text
from eczema_tf.errors import DataError
from eczema_tf.explanation.contributions import Contributions
from eczema_tf.explanation.heatmaps import compute_heatmaps
from eczema_tf.explanation.one_pass import explain_in_one_pass
from eczema_tf.files import replacing_file, replacing_folder, write_json, write_text
from eczema_tf.model.decision import compute_decision
from eczema_tf.model.losses import compute_probabilities
from eczema_tf.reporting.answer import Answer, format_answer, read_answer
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

    Returns:
        The answer as lines for a terminal.

    Raises:
        RunError: If the folder holds no finished run.
        DataError: If there is nothing to explain, or something that this model cannot use.
        EczemaError: If `out` exists and is not empty, or the disk refuses.
    """
    question = Question(target, direction, image_method)
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
        self._submodels = run_folder.take_apart(run_dir, self._trained)
        self._locate = TokenLocator(self._trained.tokenizer)
        self._describe_reading = TextReader(self._trained.tokenizer)

    async def ask(self, photo: bytes, text: str) -> Findings:
        """Answers an upright JPEG and a text; see `serving.answering.Backend`.

        Raises:
            DataError: If there is nothing to explain, or something that this model cannot use.
        """
        self._check(photo, text)
        inputs = build_client_inputs(self._trained, [photo], [text])
        if not photo and not inputs[TEXT_PRESENT].any():
            raise DataError("--text: nothing readable in it")
        target, direction, image_method = self.question
        why = explain_in_one_pass(self._submodels, to_model_inputs(inputs), target)
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
            answer=self._read(inputs, text, why.logits),
            contributions=Contributions(*why.contributions.numpy()[0].tolist()),
            heatmap=heatmap,
            tokens=self._locate_tokens(inputs, text, why.token_scores.numpy()[0]),
        )

    async def answer(self, photo: bytes, text: str) -> Answer:
        """Answers, and does not explain."""
        inputs = build_client_inputs(self._trained, [photo], [text])
        # called and not compiled: compiling takes ten times as long as answering
        logits = self._trained.model(to_model_inputs(inputs), training=False)
        return self._read(inputs, text, logits)

    def _read(
        self, inputs: Mapping[str, np.ndarray], text: str, logits: Mapping[str, tf.Tensor]
    ) -> Answer:
        outputs = {
            name: np.asarray(value)[0].tolist()
            for name, value in compute_probabilities(logits).items()
        }
        used = {
            "image_used": bool(inputs[IMAGE_PRESENT][0]),
            "text_used": bool(inputs[TEXT_PRESENT][0]),
        }
        written = tf.constant([text.encode("utf-8", "replace")])
        reading = self._describe_reading(written, clean_text(written))
        status = reading.numpy()[0].decode() if used["text_used"] else STATUS_OK
        decided = compute_decision(logits, inputs, is_read(reading))
        outputs |= {name: bool(decided[name][0]) for name in ("known_image", "known_text")}
        outputs["decision"] = DECISIONS[int(decided["decision"][0])]
        return read_answer({**outputs, **used, "status": status}, self._thresholds, self._notice)

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

    def _locate_tokens(
        self, inputs: Mapping[str, np.ndarray], text: str, scores: np.ndarray
    ) -> ScoredTokens | None:
        if not inputs[TEXT_PRESENT].any():
            return None
        cleaned = clean_text(tf.constant([text.encode("utf-8", "replace")]))
        starts, ends = (offsets.numpy()[0].tolist() for offsets in self._locate(cleaned))
        vocabulary = self._trained.tokenizer.vocabulary
        continues = [vocabulary[token].startswith("##") for token in inputs[TOKEN_IDS][0]]
        return ScoredTokens(starts, ends, scores, continues)
