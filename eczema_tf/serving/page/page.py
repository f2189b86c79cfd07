"""The web page at `/`: a template, a style sheet, a script, and what the script asks for.

| address | what |
|---|---|
| GET `/` | the page (`templates/page.html.j2`) |
| GET `/page/page.js`, `page.css`, `answer.css`, `example.jpg` | what it loads |
| POST `/page/preview` | a photo's bytes in, the photo as the model will see it out |
| POST `/page/answer` | one row in, as in the REST interface; the answer as HTML out |

Errors are those of the REST interface; a photo or text that cannot be used is a 422. Photo and text
are kept only in memory, and only while a request is answered.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from fastapi import Depends, FastAPI, HTTPException, Request, Response

from eczema_tf.data.synthetic.photo import encode_photo, render_photo
from eczema_tf.errors import DataError
from eczema_tf.reporting.answer import Answer
from eczema_tf.reporting.answer_html import STYLE_SHEET, render_answer
from eczema_tf.reporting.html import TEMPLATES
from eczema_tf.schema import MODALITIES
from eczema_tf.serving.cases import Said
from eczema_tf.serving.graph.signature import list_signatures
from eczema_tf.serving.reading import PhotoReader
from eczema_tf.serving.rest.app import JSON, accept_only, await_unless_gone
from eczema_tf.serving.rest.contract import BadRequest, parse_request
from eczema_tf.serving.rest.limits import Limits

HERE = Path(__file__).parent
PAGE_TEMPLATE = HERE / "templates" / "page.html.j2"
PAGE_FILES = {
    "page.js": (HERE / "page.js", "text/javascript"),
    "page.css": (HERE / "page.css", "text/css"),
    "answer.css": (STYLE_SHEET, "text/css"),
}
# The page may not contact any other server, and runs and shows only its own files.
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:;"
        " connect-src 'self'; media-src blob:; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-DNS-Prefetch-Control": "off",
}
MAX_PHOTOS = 3  # of one case
MAX_CHARACTERS = 5_000  # of a text; the model reads 512 tokens, some 400 words
# The largest share of a request that photos may take: they are sent as base64, 4/3 of their size,
# with the text.
BASE64_ROOM = 0.7

Ask = Callable[[Sequence[bytes], str, str], Coroutine[Any, Any, Answer]]


def mount_page(app: FastAPI, answer: Ask, limits: Limits, said: Said) -> None:
    """Adds the page to the server's application.

    Args:
        app: The server's application, from `build_app`.
        answer: Answers upright JPEGs, a text and clinical fields ("" for none), as
            `answering.answer_case` does.
        limits: Of the server.
        said: What is known about the model.
    """
    page, own = _Page(answer, app.state.reader, limits, said), Depends(check_same_origin)
    app.add_api_route("/", page.show, methods=["GET", "HEAD"])
    for path, endpoint, kind in (
        ("/page/preview", page.preview_photo, "application/octet-stream"),
        ("/page/answer", page.answer_question, JSON),
    ):
        app.add_api_route(path, endpoint, methods=["POST"], dependencies=[own, accept_only(kind)])
    app.add_api_route("/page/example.jpg", get_example)
    app.add_api_route("/page/{name}", get_file)  # after the others, whose paths it matches, too


class _Page:
    """The endpoints that depend on the model and on the server's limits."""

    def __init__(self, answer: Ask, reader: PhotoReader, limits: Limits, said: Said):
        self._signatures = list_signatures(bool(said.clinical))
        self._answer = answer
        self._reader = reader
        self._timeout_s = limits.answer_timeout_s
        self._max_photo_bytes = int(BASE64_ROOM * limits.max_body_bytes)
        self._html = TEMPLATES.from_string(PAGE_TEMPLATE.read_text(encoding="utf-8")).render(
            notice=said.notice,
            fields=said.clinical,
            uses=said.uses,
            examples=[example for example in PAGE_EXAMPLES if example.needs <= {*said.uses}],
            max_characters=MAX_CHARACTERS,
            max_photos=MAX_PHOTOS,
            max_photo_bytes=self._max_photo_bytes,
        )

    async def show(self) -> Response:
        return _respond(self._html, "text/html")

    async def preview_photo(self, request: Request) -> Response:
        jpeg = await self._reader.read(await request.body())
        if len(jpeg) > self._max_photo_bytes:
            size = f"{self._max_photo_bytes / 1e6:g} MB"
            raise DataError(f"photo is larger than {size} as a JPEG: choose a smaller one")
        return _respond(jpeg, "image/jpeg")

    async def answer_question(self, request: Request) -> Response:
        question = parse_request(await request.body(), MAX_PHOTOS, self._signatures)
        if len(question.listed) > 1:
            raise BadRequest(f"{len(question.listed)} rows; a question must be one row: one case")
        text = question.texts[0]
        if len(text) > MAX_CHARACTERS:
            raise DataError(
                f"the text has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read:"
                " shorten it"
            )
        given = [image for image in question.images if image]
        photos, said = await self._reader.read_rows(given)
        faults = [
            fault.replace("photo:", f"photo {number}:" if len(given) > 1 else "photo", 1)
            for number, fault in enumerate(said, 1)
            if fault
        ]
        if not any(photos) and not text.strip():
            raise DataError("; ".join([*faults, "give a photo, a text, or both"]))
        answering = self._answer(photos, text, question.clinical[0])
        answer = await await_unless_gone(request, answering, self._timeout_s)
        refused = request.query_params.get("photo_refused") == "true"
        html = await asyncio.to_thread(
            render_answer, answer, photos, text, faults=faults, photo_refused=refused
        )
        return _respond(html, "text/html")


async def get_example() -> Response:
    """Draws the photo of the examples."""
    return _respond(await asyncio.to_thread(draw_example_photo), "image/jpeg")


async def get_file(name: str) -> Response:
    """Reads one of the page's own files."""
    if name not in PAGE_FILES:
        raise HTTPException(404)
    path, media_type = PAGE_FILES[name]
    return _respond(path.read_bytes(), media_type)


def check_same_origin(request: Request) -> None:
    """Accepts requests from this page and from programs, but not from another site's page.

    This is the rule of Go's `http.CrossOriginProtection`: `Sec-Fetch-Site` if the browser sends it
    (it does over HTTPS and to its own machine), else `Origin`.

    Raises:
        HTTPException: 403.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is None and origin is not None:
        # a browser's `Origin` has no path; one that is malformed matches no server
        is_same = origin.partition("://")[2] == request.headers.get("host")
        site = "same-origin" if is_same else "cross-site"
    if site not in (None, "same-origin", "none"):
        raise HTTPException(403, "only this server's own page may send this request")


def _respond(content: bytes | str, media_type: str) -> Response:
    return Response(content, media_type=media_type, headers=HEADERS)


EXAMPLE_LESION = {
    "lesion": "visible",
    "colour": "red",
    "border": "blurred",
    "surface": "fine_scale",
    "elements": "none",
    "arrangement": "patches",
    "excoriation": "scratched",
    "lichenification": "thickened",
    "extent": "medium",
    "intensity": "marked",
}
SEED = 7


class Example(NamedTuple):
    """What an example's button fills in.

    Attributes:
        name: The button's label.
        has_photo: Whether the example includes the rendered photo.
        text: "" for none.
    """

    name: str
    has_photo: bool
    text: str

    @property
    def needs(self) -> set[str]:
        """The modalities that a model must use for this example to make sense."""
        given = {"image": self.has_photo, "text": bool(self.text)}
        return {name for name in MODALITIES if given[name]}


PAGE_EXAMPLES = (
    Example(
        "Photo + text",
        True,
        "Dry, itchy patches in both elbow creases since I was a child. They get worse in winter and"
        " I scratch at night. No blisters. My mother has asthma and hay fever.",
    ),
    Example("Photo only", True, ""),
    Example(
        "Text only",
        False,
        "One round patch on my shin for three weeks. It does not itch. The edge is raised and scaly"
        " and it slowly gets larger. Nobody in my family has eczema or asthma.",
    ),
)


@cache
def draw_example_photo() -> bytes:
    """Renders the photo of the examples: a JPEG of less than 100 kB."""
    rng = np.random.default_rng(SEED)
    pixels, _ = render_photo(EXAMPLE_LESION, "III", "arm", rng)
    return encode_photo(pixels, rng)
