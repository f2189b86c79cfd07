"""One photo and one text through a trained run, with everything that explains the answer: what `explain` writes."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from eczema_tf.data.photo.inspection import upright_jpeg
from eczema_tf.data.photo.preprocess import preprocess_photo
from eczema_tf.data.text.alignment import AlignedText, align_text
from eczema_tf.data.text.offsets import TokenLocator
from eczema_tf.errors import DataError
from eczema_tf.explanation.heatmaps import compute_heatmaps, upsample_heatmap
from eczema_tf.explanation.one_pass import HEATMAP_METHOD
from eczema_tf.explanation.submodels import Submodels, to_tensors
from eczema_tf.explanation.words import (
    TokenScores,
    integrate_gradients,
    join_phrases,
    join_words,
    multiply_gradient_by_input,
)
from eczema_tf.files import replacing_file, replacing_folder, write_json, write_text
from eczema_tf.model.losses import compute_probabilities
from eczema_tf.reporting.description import (
    describe_contributions,
    describe_criteria,
    describe_cues,
    describe_heatmap,
    describe_spans,
)
from eczema_tf.reporting.explanation_page import format_page
from eczema_tf.reporting.overlay import draw_overlay
from eczema_tf.schema import IMAGE, IMAGE_PRESENT, NOTICE, PADDING_MASK, TEXT_PRESENT, TOKEN_IDS
from eczema_tf.serving.answer import arrange_answer
from eczema_tf.symptoms.cues import attribute_cues, find_cues
from eczema_tf.workflows import run_folder

TEXT_METHODS = {
    "integrated_gradients": integrate_gradients,
    "gradient_x_input": multiply_gradient_by_input,
}
OVERLAY, ANSWER, PAGE = "heatmap.png", "explanation.json", "explanation.html"


@dataclass(frozen=True)
class Explanation:
    """What was found.

    Attributes:
        answer: JSON-able: probabilities, heatmap's summary, words, phrases, cues, criteria,
            contributions, notice.
        overlay: PNG, or None without a photo.
        photo: The upright JPEG that was looked at, or None.
        text: As the user wrote it.
    """

    answer: dict[str, Any]
    overlay: bytes | None
    photo: bytes | None
    text: str


class ExplainedRun:
    """A trained run, ready to explain one case after the other."""

    def __init__(self, run_dir: Path):
        """Loads a run.

        Args:
            run_dir: Of a finished `train`.

        Raises:
            RunError: If the folder holds no finished run.
        """
        self.trained = run_folder.load_model(run_dir)
        self.thresholds: dict[str, float] = run_folder.read_json(run_dir / run_folder.THRESHOLDS)
        self._trained_on = frozenset(run_folder.read_json(run_dir / run_folder.DATA)["trained_on"])
        self.cut = Submodels(self.trained.model)
        self._locate = TokenLocator(self.trained.tokenizer)

    def explain(
        self,
        photo: bytes,
        text: str,
        *,
        target: str = "eczema",
        image_method: str = HEATMAP_METHOD,
        text_method: str = "integrated_gradients",
        against: bool = False,
    ) -> Explanation:
        """Explains one case.

        Args:
            photo: In any format that `upright_jpeg` reads; b"" for none.
            text: As the user wrote it; "" for none.
            target: As in `attribution.cut.select_logit`.
            image_method: One of `attribution.image.METHODS`.
            text_method: One of `TEXT_METHODS`.
            against: Whether the heatmap shows what speaks against the target.

        Raises:
            DataError: If there is nothing to explain, or something that this model cannot use.
        """
        self._check(photo, text)
        upright = upright_jpeg(photo) if photo else None
        aligned = align_text(text)
        if text.strip() and not aligned.cleaned and not photo:
            raise DataError("--text: nothing readable in it")
        inputs = self._build_inputs(upright, aligned.cleaned)
        logits = self._answer(_without_each(inputs))
        answer = self._arrange(logits, bool(photo), bool(aligned.cleaned))
        answer["explained"] = {"target": target, "direction": "against" if against else "for"}
        answer["contributions"] = describe_contributions(logits["eczema"][:, 0])
        overlay = None
        if upright is not None:
            heatmap = compute_heatmaps(
                self.cut, inputs, target=target, method=image_method, against=against
            )[0]
            answer["heatmap"] = {"method": image_method, **describe_heatmap(heatmap)}
            overlay = _draw(
                upright, heatmap, f"evidence {answer['explained']['direction']} {target}"
            )
        if aligned.cleaned:
            scores = TEXT_METHODS[text_method](self.cut, inputs, target=target)
            answer["text"] = {
                "method": text_method,
                **self._describe_text(text, aligned, inputs, scores),
            }
        return Explanation({**answer, "notice": NOTICE}, overlay, upright, text)

    def _check(self, photo: bytes, text: str) -> None:
        if not photo and not text.strip():
            raise DataError("nothing to explain: give a photo, a text or both")
        for name, given in (("image", bool(photo)), ("text", bool(text.strip()))):
            if given and name not in self._trained_on:
                raise DataError(
                    f"--{name}: this run was not trained on"
                    f" {'photos' if name == 'image' else 'texts'}; leave it out"
                )
        if photo and self.trained.encoders.image.kind == "precomputed":
            raise DataError(
                "--image: this run was trained on precomputed embeddings and cannot see a photo;"
                " leave it out"
            )

    def _build_inputs(self, upright: bytes | None, cleaned: str) -> dict[str, np.ndarray]:
        """One row, as the model takes it."""
        shape = self.trained.model.input[IMAGE].shape[1:]
        pixels = np.zeros(shape, "float32")
        if upright is not None:
            pixels = preprocess_photo(
                tf.constant(upright), tf.constant(1), shape[0], self.trained.config.preprocess
            ).numpy()
        token_ids, padding_mask = (
            value.numpy() for value in tf.function(self.trained.tokenizer)(tf.constant([cleaned]))
        )
        return {
            IMAGE: pixels[None].astype("float32"),
            IMAGE_PRESENT: np.array([upright is not None], "float32"),
            TOKEN_IDS: token_ids.astype("int32"),
            PADDING_MASK: padding_mask.astype("int32"),
            TEXT_PRESENT: np.array([bool(cleaned)], "float32"),
        }

    def _answer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Called and not compiled: for four rows, compiling takes ten times as long as answering."""
        return {
            head: value.numpy()
            for head, value in self.trained.model(to_tensors(inputs), training=False).items()
        }

    def _arrange(
        self, logits: dict[str, np.ndarray], image_used: bool, text_used: bool
    ) -> dict[str, Any]:
        first = {
            head: np.asarray(value)[0].tolist()
            for head, value in compute_probabilities(logits).items()
        }
        return arrange_answer(
            {**first, "image_used": image_used, "text_used": text_used, "status": "ok"},
            self.thresholds,
        )

    def _describe_text(
        self, text: str, aligned: AlignedText, inputs: dict[str, np.ndarray], scores: TokenScores
    ) -> dict[str, Any]:
        starts, ends = (
            offsets.numpy()[0] for offsets in self._locate(tf.constant([aligned.cleaned]))
        )
        places = [
            aligned.locate(start, end) if end > start else (0, 0)
            for start, end in zip(starts, ends, strict=True)
        ]
        vocabulary = self.trained.tokenizer.vocabulary
        continues = [vocabulary[token].startswith("##") for token in inputs[TOKEN_IDS][0]]
        words = join_words(scores.scores[0], *zip(*places, strict=True), continues)
        cues = attribute_cues(
            find_cues(text), [(word.start, word.end, word.score) for word in words]
        )
        return {
            "logit_difference": float(scores.difference[0]),
            "completeness_error": float(scores.completeness_error[0]),
            "words": describe_spans(text, words),
            "phrases": describe_spans(text, join_phrases(text, words)),
            "cues": describe_cues(cues),
            "criteria": describe_criteria(cues),
        }


def write_explanation(explanation: Explanation, out: Path) -> None:
    """Writes the overlay, the JSON and the page into a folder, all or nothing.

    Args:
        explanation: From `ExplainedRun.explain`. It holds the photo and the text, and so does what
            is written.
        out: A new folder.

    Raises:
        EczemaError: If the folder is there already and not empty, or the disk refuses.
    """
    with replacing_folder(out) as aside:
        write_json(aside / ANSWER, explanation.answer)
        if explanation.overlay is not None:
            with replacing_file(aside / OVERLAY) as file:
                file.write_bytes(explanation.overlay)
        write_text(
            aside / PAGE,
            format_page(
                explanation.answer,
                explanation.text,
                _as_data(explanation.photo, "jpeg"),
                _as_data(explanation.overlay, "png"),
            ),
        )


def _as_data(picture: bytes | None, kind: str) -> str | None:
    return (
        None
        if picture is None
        else f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
    )


def _without_each(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The row as it is, without the text, without the photo, without both."""
    rows = {name: np.repeat(value, 4, axis=0) for name, value in inputs.items()}
    rows[TEXT_PRESENT] = rows[TEXT_PRESENT] * np.array([1, 0, 1, 0], "float32")
    rows[IMAGE_PRESENT] = rows[IMAGE_PRESENT] * np.array([1, 1, 0, 0], "float32")
    return rows


def _draw(upright: bytes, heatmap: np.ndarray, label: str) -> bytes:
    photo = Image.open(io.BytesIO(upright)).convert("RGB")
    photo.thumbnail((1024, 1024))
    return draw_overlay(
        np.asarray(photo), upsample_heatmap(heatmap, photo.height, photo.width), label
    )
