"""What happens when the page is used. Photo and text are kept by the browser, which sends them when it asks; nothing is kept here."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import gradio as gr

from eczema_tf.data.photo.inspection import upright_jpeg
from eczema_tf.errors import DataError, EczemaError
from eczema_tf.reporting.answer import Answer
from eczema_tf.reporting.answer_html import render_answer, render_failure, render_fault
from eczema_tf.serving.page.examples import Example, draw_example_photo
from eczema_tf.serving.page.photo import forget_file, read_photo, show_photo

Ask = Callable[[bytes, str], Awaitable[Answer]]
Photo = dict[str, Any] | None  # the value of Gradio's image component

MAX_CHARACTERS = 5_000  # of a text; the model reads the first hundred words or so

_log = logging.getLogger(__name__)


class Events:
    """The functions that the page's parts call; they take and give the values of Gradio's components as they are."""

    def __init__(self, answer: Ask, uploads: Path, timeout_s: float):
        """Takes what they need.

        Args:
            answer: Answers an upright JPEG (b"" for none) and a text ("" for none).
            uploads: Where Gradio puts uploaded files.
            timeout_s: How long an answer may take.
        """
        self._answer = answer
        self._uploads = uploads
        self._timeout_s = timeout_s

    async def preview(self, photo: Photo) -> tuple[Photo, str]:
        """Takes an upload: the photo as the model will see it, and what is wrong with it (HTML) if it cannot be used."""
        if (
            not photo
        ):  # taken away; or about to be replaced, and then the new one must not be wiped out
            return gr.skip(), ""
        try:
            return show_photo(await asyncio.to_thread(read_photo, photo, self._uploads)), ""
        except DataError as error:
            return None, render_fault(str(error))
        finally:
            forget_file(photo, self._uploads)

    async def ask(self, photo: Photo, text: str | None, fault: str | None) -> str:
        """Answers what was entered, as HTML; whatever goes wrong becomes a message. `fault` is what `preview` said of the photo."""
        try:
            return await self._ask(photo, text or "", bool(fault))
        except (EczemaError, TimeoutError) as error:
            message = (
                str(error)
                if isinstance(error, EczemaError)
                else f"there was no answer within {self._timeout_s:g} seconds; try again"
            )
        # the page must say that something failed; what was asked may be in the error, so it is not
        # logged
        except Exception as error:
            _log.error("the page failed: %s", type(error).__name__)
            message = "something went wrong on the server; try again"
        return render_failure(message)

    async def _ask(self, photo: Photo, text: str, photo_refused: bool) -> str:
        jpeg, faults = b"", []
        try:
            jpeg = await asyncio.to_thread(read_photo, photo, self._uploads)
        except DataError as error:
            faults.append(str(error))
        if len(text) > MAX_CHARACTERS:
            raise DataError(
                f"the text has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read:"
                " shorten it"
            )
        if not jpeg and not text.strip():
            raise DataError("; ".join([*faults, "give a photo, a text, or both"]))
        answer = await asyncio.wait_for(self._answer(jpeg, text), self._timeout_s)
        return await asyncio.to_thread(
            render_answer, answer, jpeg, text, faults=faults, photo_refused=photo_refused
        )


def fill(example: Example) -> tuple[Photo, str, str]:
    """Returns an example's photo, no fault, and its text."""
    return (
        show_photo(upright_jpeg(draw_example_photo())) if example.has_photo else None,
        "",
        example.text,
    )
