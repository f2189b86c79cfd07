"""The page's parts and their places: the question on the left, the answer on the right, one under the other on a phone."""

from functools import partial
from typing import NamedTuple

import gradio as gr

from eczema_tf.reporting.answer_html import render_notice
from eczema_tf.serving.page.events import MAX_CHARACTERS, Events, fill
from eczema_tf.serving.page.examples import EXAMPLES

TITLE = "Eczema assistant"
LEAD = (
    "A photo of the skin, a description of the symptoms, or both: what a small research model makes"
    " of them, and why."
)
PRIVACY = (
    "Photo and text stay in this browser and go to the server that you opened, for as long as an"
    " answer takes. Nothing is stored."
)
STEPS = (
    "<ol class='steps'><li><strong>Show or tell</strong><span>A photo of the skin, a description of"
    " the symptoms, or both.</span></li><li><strong>Ask</strong><span>The answer shows what the"
    " photo says, what the text says, and what both say together.</span></li><li><strong>See"
    " why</strong><span>Where in the photo and in your own words the evidence"
    " lies.</span></li></ol>"
)
NOTHING_YET = (
    f"<div class='answer empty'><h2 id='answer-title' tabindex='-1'>Answer</h2>{STEPS}</div>"
)
# so that keyboards and screen readers go on where the answer begins
FOCUS = "() => document.getElementById('answer-title')?.focus()"
AT_ONCE = 16  # events of one kind; more wait

_EVENT = {
    "preprocess": False,
    "postprocess": False,
    "api_visibility": "private",
    "concurrency_limit": AT_ONCE,
}
_HTML = {"apply_default_css": False, "js_on_load": None}


class Question(NamedTuple):
    """The parts of the question."""

    photo: gr.Image
    fault: gr.HTML
    text: gr.Textbox
    ask: gr.Button
    clear: gr.Button
    examples: list[gr.Button]


def build_page(events: Events) -> gr.Blocks:
    """Builds the page; its parts call `events`."""
    with gr.Blocks(title=TITLE, analytics_enabled=False) as blocks:
        gr.HTML(f"<header><h1>{TITLE}</h1><p>{LEAD}</p>{render_notice()}</header>", **_HTML)
        with gr.Row(elem_id="columns"):
            with gr.Column(elem_id="question"):
                question = _build_question()
            with gr.Column(elem_id="result"):
                result = gr.HTML(NOTHING_YET, **_HTML)
        gr.HTML(f"<footer>{render_notice()}<p>{PRIVACY}</p></footer>", **_HTML)
        _connect(events, question, result)
    return blocks


def _build_question() -> Question:
    gr.HTML("<h2>Your question</h2>", **_HTML)
    photo = gr.Image(
        label="Photo of the skin",
        placeholder="Drop a photo here\nor click to choose one",
        sources=["upload", "webcam", "clipboard"],
        type="filepath",
        height=280,
        buttons=[],
        webcam_options=gr.WebcamOptions(mirror=False),
        alt_text="The photo that you chose",
        elem_id="photo",
    )
    photo.async_move_resource_to_block_cache = _leave_in_place
    fault = gr.HTML("", elem_id="fault", **_HTML)
    text = gr.Textbox(
        label="Symptoms, in your own words",
        placeholder="What does it look like? Does it itch? Where is it, and since when?",
        lines=5,
        max_lines=14,
        max_length=MAX_CHARACTERS,
        elem_id="symptoms",
    )
    ask, clear = (
        gr.Button("Ask", variant="primary", elem_id="ask"),
        gr.Button("Start over", elem_id="clear"),
    )
    gr.HTML(
        "<h3>Or try an example</h3><p class='soft'>Made up: a rendered photo, texts that nobody"
        " wrote about themselves.</p>",
        **_HTML,
    )
    with gr.Row(elem_id="examples"):
        examples = [gr.Button(example.name) for example in EXAMPLES]
    return Question(photo, fault, text, ask, clear, examples)


async def _leave_in_place(path: str) -> str:
    """Gradio would copy a file into its cache, and download one whose address a client names."""
    return path


def _connect(events: Events, question: Question, result: gr.HTML) -> None:
    entered = [question.photo, question.fault, question.text]
    asking = {
        "fn": events.ask,
        "inputs": [question.photo, question.text, question.fault],
        "outputs": result,
        "show_progress": "minimal",
    }
    filling = {"inputs": None, "show_progress": "hidden", **_EVENT}
    question.photo.input(
        events.preview,
        question.photo,
        [question.photo, question.fault],
        show_progress="hidden",
        trigger_mode="multiple",  # pasting takes the old photo away first: two events, both needed
        **_EVENT,
    )
    gr.on([question.ask.click, question.text.submit], **asking, **_EVENT).then(None, js=FOCUS)
    question.clear.click(lambda: (None, "", "", NOTHING_YET), outputs=[*entered, result], **filling)
    for button, example in zip(question.examples, EXAMPLES, strict=True):
        button.click(partial(fill, example), outputs=entered, **filling).then(
            **asking, **_EVENT
        ).then(None, js=FOCUS)
