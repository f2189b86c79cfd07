"""Tests of explained answers without a browser (numbers, HTML, pictures) and of `predict`."""

import asyncio
import base64
import io
import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import colormaps
from PIL import Image
from scipy.special import logit
from starlette.testclient import TestClient
from test_serving import METADATA, photo

from eczema_tf.data.photo.upright import upright_jpeg
from eczema_tf.errors import DataError
from eczema_tf.explanation.contributions import Contributions
from eczema_tf.explanation.spans import join_words
from eczema_tf.reporting.answer import Answer, Heatmap, format_answer
from eczema_tf.reporting.answer_html import (
    STRENGTHS,
    STYLE_SHEET,
    draw_pictures,
    find_full_colour,
    group_mentions,
    render_answer,
)
from eczema_tf.reporting.html import format_percent, format_signed
from eczema_tf.reporting.pictures import (
    COLOURS,
    HEATMAP_SIDE_PX,
    as_data_url,
    paint_heatmap,
    shrink_photo,
)
from eczema_tf.schema import ECZEMA_HEADS, NOTICE
from eczema_tf.serving.answering import ExportBackend, Question, answer_case, find_continuing
from eczema_tf.serving.exported import ExportedModel
from eczema_tf.serving.rest.app import build_app
from eczema_tf.serving.rest.batching import Busy
from eczema_tf.serving.rest.limits import Limits
from eczema_tf.symptoms.cues import Cue

THRESHOLDS = METADATA.thresholds
TEXT = "My skin is itchy and dry. No fever. My mother has asthma."


@pytest.fixture(scope="module")
def model(small_export: Path) -> ExportedModel:
    return ExportedModel(small_export)


def explain(model: ExportedModel, image: bytes, text: str) -> Answer:
    async def ask(images, texts, signature, _):
        return model.run(images, texts, signature)

    backend = ExportBackend(ask, METADATA.said)
    return asyncio.run(answer_case(backend, [image] if image else [], text))


def render(answer: Answer, image: bytes, text: str, **options) -> str:
    return render_answer(answer, [image] if image else [], text, **options)


# The answer.


def test_answer_has_the_probabilities_of_the_model(model: ExportedModel):
    image = upright_jpeg(photo())
    answer, row = explain(model, image, TEXT), model.run([image], [TEXT])
    # the two signatures are separate float32 graphs, so the last bits depend on the processor
    assert answer.eczema == pytest.approx(
        {
            "image": row["eczema_image"][0],
            "text": row["eczema_text"][0],
            "fusion": row["eczema"][0],
        },
        rel=1e-5,
    )
    assert list(answer.severity.values()) == pytest.approx(row["severity"][0])
    assert answer.notice == NOTICE
    assert answer.thresholds == THRESHOLDS


def test_contributions_add_up_to_the_logit_and_words_to_the_text(model: ExportedModel):
    image = upright_jpeg(photo())
    answer = explain(model, image, TEXT)
    split, probability = answer.explanation.contributions, answer.eczema["fusion"]
    assert split.logit == pytest.approx(math.log(probability / (1 - probability)), abs=1e-4)
    words = sum(word.score for word in answer.explanation.text.words)
    assert words == pytest.approx(split.text, abs=0.02)


def test_counter_checks_answer_the_case_without_one_part(model: ExportedModel):
    image = upright_jpeg(photo())
    why = explain(model, image, TEXT).explanation
    strongest = why.text.phrases[0]
    rest = f"{TEXT[: strongest.start]} {TEXT[strongest.end :]}"
    rows = model.run([image, b"", image], [rest, TEXT, ""])["eczema"]
    assert [check.eczema for check in why.checks] == pytest.approx(rows.tolist(), abs=1e-6)
    assert [check.without for check in why.checks] == ["phrase", "photo", "text"]
    page = render(explain(model, image, TEXT), image, TEXT)
    assert f"Without “{strongest.text}”" in page
    (alone,) = explain(model, b"", "itchy").explanation.checks
    assert alone.eczema is None
    assert "nothing is left to go by" in render(explain(model, b"", "itchy"), b"", "itchy")


def test_missing_modality_contributes_nothing(model: ExportedModel):
    text_only, image_only = explain(model, b"", TEXT), explain(model, upright_jpeg(photo()), "")
    assert text_only.explanation.contributions.image == pytest.approx(0, abs=1e-5)
    assert image_only.explanation.contributions.text == pytest.approx(0, abs=1e-5)
    assert not any(text_only.explanation.heatmaps)
    assert image_only.explanation.text is None


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        "Größe\tİtchy — ½ naïve  café, itchy-dry <b>red</b> 皮膚 rash!",
        "itchiness\n\n\nredder",
    ],
)
def test_words_are_whole_words_of_the_original_text(model: ExportedModel, text: str):
    words = explain(model, b"", text).explanation.text.words
    assert words
    for word, after in zip(words, [*words[1:], None], strict=True):
        assert word.text == text[word.start : word.end]
        assert word.text.strip()
        assert after is None or word.end <= after.start
        # words that touch are separated only at punctuation or CJK
        if after is not None and word.end == after.start:
            assert not (
                text[word.end - 1].isascii()
                and text[word.end - 1].isalnum()
                and text[word.end].isalnum()
            )


def test_word_scores_add_up_to_the_token_scores(model: ExportedModel):
    words = explain(model, b"", TEXT).explanation.text.words
    row = model.run([b""], [TEXT], "explain")
    in_text = row["token_end"][0] > row["token_start"][0]
    assert in_text.sum() > len(words)  # some words consist of several tokens
    assert sum(word.score for word in words) == pytest.approx(
        float(row["token_score"][0][in_text].sum()), abs=1e-5
    )


def test_token_continues_a_word_only_where_letters_touch():
    cleaned = "itchy-dry größe a".encode()
    tokens = [(0, 0), (0, 4), (4, 5), (5, 6), (6, 9), (10, 14), (14, 17), (18, 19), (0, 0)]
    assert find_continuing(cleaned, *zip(*tokens, strict=True)) == [
        False,
        False,
        True,  # itch|y
        False,
        False,
        False,
        True,  # grö|ße
        False,
        False,
    ]


class FakeBackend:
    """A fake backend whose heatmap is highest at the right of the top row, or zero everywhere."""

    question = Question(target="severity:moderate", direction="against")

    def __init__(self, model: ExportedModel, *highest: float):
        self.said = METADATA.said
        self._model = model
        self._highest = highest

    async def ask(self, photos, text: str, clinical: str):
        heatmap = np.zeros((len(photos), 2, 4), "float32")
        heatmap[:, 0, 3] = self._highest
        moved = np.tile(np.array([-0.5, 1.5, 0.0], "float32"), (len(photos), 1))
        maps = {"heatmap": heatmap, "heatmap_scale": np.full(len(photos), 0.25, "float32")}
        return {**await self.answer(photos, text), **maps, "contribution": moved}

    async def answer(self, photos, text: str):
        return self._model.run(photos, [text] * len(photos), "serving_default")


def test_explanation_follows_the_question_of_the_backend(model: ExportedModel):
    image = upright_jpeg(photo())
    answer = asyncio.run(answer_case(FakeBackend(model, 1.0), [image], ""))
    told = answer.to_json()
    assert told["explained"] == {"target": "severity:moderate", "direction": "against"}
    assert told["heatmap"]["peak"] == {"x": 0.875, "y": 0.25}
    assert told["heatmap"]["evidence"]
    # one of eight places, 12.5% of the photo, has 0.25 logits for each 1%
    assert (told["heatmap"]["scale"], told["heatmap"]["total"]) == (0.25, 3.125)
    assert told["contributions"] == {"neither": -0.5, "image": 1.5, "text": 0.0, "logit": 1.0}
    page = render(answer, image, "")
    assert "The evidence against severity: moderate is strongest at the top right (88%" in page
    assert "Together, all places with such evidence take 3.12 from the log-odds." in page
    assert "of a photo's area takes away, compared with a typical" in " ".join(page.split())
    assert "Evidence for severity: moderate is not shown" in page
    assert "<span>0.25</span>" in page
    assert page.count('class="map"') == page.count('class="legend"') == page.count("slider") == 1


def test_sentence_replaces_a_heatmap_without_evidence(model: ExportedModel):
    image = upright_jpeg(photo())
    answer = asyncio.run(answer_case(FakeBackend(model, 0.0), [image], ""))
    assert answer.to_json()["heatmap"] | {"grid": []} == {
        "method": "evidence",
        "evidence": False,
        "peak": None,
        "grid": [],
        "scale": 0.25,
        "total": 0.0,
        "known": True,
    }
    page = render(answer, image, "")
    assert "No evidence against severity: moderate worth showing was found in the photo." in page
    assert not any(part in page for part in ('class="map"', 'class="legend"', "slider"))


def test_tokens_of_one_character_are_joined_into_one_word():
    text = "½ red é"
    tokens = [(0, 1, 0.1, False), (0, 1, -0.3, False), (2, 5, 0.2, False), (6, 7, 0.1, False)]
    words = join_words(text, [*tokens, (6, 7, 0.2, False)])
    assert [word.text for word in words] == ["½", "red", "é"]
    assert [word.score for word in words] == pytest.approx([-0.2, 0.2, 0.3])


def test_encoder_with_one_vector_per_photo_has_no_heatmap(model: ExportedModel):
    class Vector(FakeBackend):
        async def ask(self, photos, text: str, clinical: str):
            rows = await super().ask(photos, text, clinical)
            return {**rows, "heatmap": np.zeros((len(photos), 1, 1), "float32")}

    image = upright_jpeg(photo())
    answer = asyncio.run(answer_case(Vector(model, 0.0), [image], ""))
    assert answer.to_json().get("heatmap") is None
    assert "evidence against" not in render(answer, image, "").casefold()


def test_photo_unlike_the_training_data_gets_a_sentence_and_no_heatmap(model: ExportedModel):
    class Unknown(FakeBackend):
        async def answer(self, photos, text: str):
            return {**await super().answer(photos, text), "known_image": np.array([False])}

    image = upright_jpeg(photo())
    page = render(asyncio.run(answer_case(Unknown(model, 1.0), [image], "")), image, "")
    assert "This photo is unlike anything the model was trained on" in page
    assert not any(part in page for part in ('class="map"', 'class="legend"', "slider"))


def test_heatmaps_of_an_answer_share_one_colour_scale():
    """Full colour stands for the largest scale, so the weaker photo is paler."""
    strong, weak = (Heatmap("evidence", (0.5, 0.5), ((1.0,),), scale) for scale in (0.5, 0.2))
    full = find_full_colour([strong, None, weak])
    assert full == 0.5
    photo_jpeg, alphas = upright_jpeg(photo()), []
    for picture in draw_pictures([photo_jpeg] * 3, [strong, None, weak], full):
        png = base64.b64decode(picture.heatmap_url.partition(",")[2])
        alphas.append(np.asarray(Image.open(io.BytesIO(png)))[..., 3].max())
    assert alphas == [255, 102]


def test_heatmaps_of_several_photos_share_one_slider(model: ExportedModel):
    photos = [upright_jpeg(photo(seed=seed)) for seed in range(2)]
    answer = asyncio.run(answer_case(FakeBackend(model, 1.0, 0.0, 1.0), [*photos, b""], ""))
    heatmaps = answer.to_json()["heatmaps"]
    assert [one and one["evidence"] for one in heatmaps] == [True, False, None]
    assert answer.to_json()["heatmap"] == heatmaps[0]
    page = render_answer(answer, [*photos, b""], "")
    assert page.count("<figure>") == 2
    assert page.count('class="map"') == page.count('class="legend"') == page.count("slider") == 1
    assert "Photo 1: The evidence against severity: moderate is strongest at the top right" in page
    assert "Photo 2: No evidence against severity: moderate worth showing was found" in page
    assert "this answer comes from the photos alone" in page


def test_several_photos_are_answered_by_the_mean_of_their_logits(model: ExportedModel):
    photos = [upright_jpeg(photo(seed=seed)) for seed in range(3)]

    async def ask(images, texts, signature, _):
        return model.run(images, texts, signature)

    answer = asyncio.run(answer_case(ExportBackend(ask, METADATA.said), photos, TEXT))
    rows = model.run(photos, [TEXT] * 3)
    for modality, head in ECZEMA_HEADS.items():
        assert logit(answer.eczema[modality]) == pytest.approx(logit(rows[head]).mean(), abs=1e-5)
    moved, words = answer.explanation.contributions, answer.explanation.text.words
    assert moved.logit == pytest.approx(logit(answer.eczema["fusion"]), abs=1e-4)
    assert sum(word.score for word in words) == pytest.approx(moved.text, abs=0.02)
    table = model.predict([[]], [TEXT])
    assert table.loc[0, "eczema_text"] == pytest.approx(answer.eczema["text"], abs=1e-5)


def test_cues_have_a_status_and_a_subject(model: ExportedModel):
    cues = explain(model, b"", TEXT).explanation.text.cues
    assert [(cue.text.lower(), cue.status, cue.subject) for cue in cues][:2] == [
        ("itchy", "present", "patient"),
        ("dry", "present", "patient"),
    ]
    assert ("asthma", "present", "family") in [(cue.text, cue.status, cue.subject) for cue in cues]


# HTML.


def test_percent_is_never_0_or_100_and_zero_has_no_sign():
    assert [format_percent(value) for value in (0, 0.004, 0.01, 0.5, 0.99, 0.996, 1)] == [
        "under 1%",
        "under 1%",
        "1%",
        "50%",
        "99%",
        "over 99%",
        "over 99%",
    ]
    assert [format_signed(value) for value in (1.234, -0.5, -0.001, 0.0)] == [
        "+1.23",
        "−0.50",
        "0.00",
        "0.00",
    ]


class Tags(HTMLParser):
    """Collects the tags and the visible text of a page."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data


HARMLESS = {
    "div",
    "h2",
    "h3",
    "p",
    "strong",
    "small",
    "section",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "span",
    "b",
    "i",
    "mark",
    "details",
    "summary",
    "dl",
    "dt",
    "dd",
    "svg",
    "rect",
    "pattern",
}


@given(st.text(max_size=80), st.text(st.sampled_from("<>&\"'/=itchy drno "), max_size=80))
@settings(max_examples=40)
def test_any_text_is_shown_and_not_executed(model: ExportedModel, any_text: str, markup: str):
    text = f"itchy {any_text} <img src=x onerror=alert(1)><script>alert(2)</script> {markup}"
    page = Tags(render(explain(model, b"", text), b"", text))
    assert {tag for tag, _ in page.tags} <= HARMLESS
    assert not [
        name
        for _, attributes in page.tags
        for name in attributes
        if name.startswith("on") or name in ("src", "href")
    ]
    assert "<script>alert(2)</script>" in re.sub(r" \((for|against)\)", "", page.text)


def test_answer_has_the_notice_and_names_the_missing_modality(model: ExportedModel):
    image = upright_jpeg(photo())
    both = render(explain(model, image, TEXT), image, TEXT)
    assert NOTICE in both
    assert "alone" not in both
    photo_only = render(explain(model, image, ""), image, "")
    assert "from the photo alone" in photo_only
    text_only = render(explain(model, b"", TEXT), b"", TEXT)
    assert "There was no photo, so this answer comes from the text alone" in text_only
    refused = render(explain(model, b"", TEXT), b"", TEXT, faults=["photo cannot be read"])
    assert all(NOTICE in page for page in (photo_only, text_only, refused))
    assert "Photo cannot be read." in refused
    assert "The photo could not be used, so this answer comes from the text alone" in refused


def test_status_of_the_model_is_shown(model: ExportedModel):
    answer = explain(model, b"\xff\xd8\xff" + bytes(99), TEXT)
    assert "Photo: cannot be decoded." in render(answer, b"", TEXT)


def test_status_of_the_text_is_not_attributed_to_the_photo(model: ExportedModel):
    notice = "text: read to word 8 of 90; text: mostly words this model does not know"
    page = render(replace(explain(model, b"", TEXT), status=notice), b"", TEXT)
    assert "Text: read to word 8 of 90." in page
    assert "Text: mostly words this model does not know." in page
    assert "There was no photo, so this answer comes from the text alone" in page


def test_answer_says_on_which_side_of_the_threshold_it_is(model: ExportedModel):
    image = upright_jpeg(photo())
    answer = replace(
        explain(model, image, TEXT), eczema={"image": 0.1, "text": 0.5, "fusion": 0.59}
    )
    page = render(answer, image, TEXT)
    assert "59%" in page
    assert "below the threshold of 60%" in page
    assert "above the threshold of 50%" in page
    alone = replace(answer, image_used=False, eczema={"image": None, "text": 0.59, "fusion": 0.59})
    # here the threshold of the text decides
    assert "threshold of 60%" not in render(alone, image, TEXT)
    unknown = render(replace(answer, thresholds=None), image, TEXT)
    assert "threshold" not in re.sub(r'<p class="soft">.*?</p>', "", unknown)


def test_answer_html_complies_with_a_strict_security_policy(model: ExportedModel):
    """`style-src 'self'; script-src 'self'` forbids style attributes and inline scripts."""
    image = upright_jpeg(photo())
    page = Tags(render(explain(model, image, TEXT), image, TEXT))
    assert "script" not in {tag for tag, _ in page.tags}
    names = {name for _, attributes in page.tags for name in attributes}
    assert "style" not in names
    assert not [name for name in names if name.startswith("on")]


def test_bar_lengths_match_their_values(model: ExportedModel):
    explained = explain(model, b"", TEXT)
    moved = Contributions(neither=-0.5, image=0.0, text=1.0)
    answer = replace(
        explained,
        eczema={"image": None, "text": 0.123, "fusion": 0.59},
        explanation=replace(explained.explanation, contributions=moved),
    )
    bars = [attributes for tag, attributes in Tags(render(answer, b"", TEXT)).tags if tag == "rect"]
    assert bars[1]["width"] == "12.3%"
    assert bars[2]["x"] == "50.0%"  # marks the text's threshold
    pushes = [bar for bar in bars if bar["class"] in ("for", "against")]
    assert [(bar["class"], bar["x"], bar["width"]) for bar in pushes] == [
        ("against", "25.0%", "25.0%"),  # the starting point, left of the centre
        ("for", "50.0%", "50.0%"),  # the text, the longest bar
        ("for", "50.0%", "25.0%"),  # together
    ]


def test_faults_are_shown_as_escaped_sentences(model: ExportedModel):
    faults = ["photo <b> is bad", "It ends."]
    page = render(explain(model, b"", TEXT), b"", TEXT, faults=faults)
    assert '<p class="fault" role="alert">Photo &lt;b&gt; is bad.</p>' in page
    assert '<p class="fault" role="alert">It ends.</p>' in page


def test_style_sheet_has_every_shade_and_the_heatmap_colours():
    style = STYLE_SHEET.read_text()
    for strength in range(1, STRENGTHS + 1):
        assert f'[data-strength="{strength}"]' in style
    for place in np.linspace(0, 1, 9):
        assert "#{:02x}{:02x}{:02x}".format(*colormaps[COLOURS](place, bytes=True)[:3]) in style


# Pictures.


def test_heatmap_follows_the_grid_and_is_transparent_without_evidence():
    grid = np.zeros((4, 4))
    grid[0, 3] = 1.0
    pixels = np.asarray(paint_heatmap(grid))
    assert pixels.shape == (HEATMAP_SIDE_PX, HEATMAP_SIDE_PX, 4)
    assert pixels[0, -1].tolist() == [253, 231, 36, 255]  # the last colour of viridis, opaque
    assert not pixels[HEATMAP_SIDE_PX // 2 :, :, 3].any()
    assert not np.asarray(paint_heatmap(np.zeros((1, 1))))[..., 3].any()


def test_large_photos_are_shrunk_for_display():
    buffer = io.BytesIO()
    Image.new("RGB", (4000, 1000), "salmon").save(buffer, "JPEG")
    assert shrink_photo(buffer.getvalue()).size == (1024, 256)
    assert shrink_photo(upright_jpeg(photo())).size == (60, 44)


@pytest.mark.parametrize(("kind", "format"), [("png", "PNG"), ("jpeg", "JPEG")])
def test_data_url_contains_the_picture(kind: str, format: str):
    start, _, data = as_data_url(Image.new("RGB", (8, 6), "salmon"), kind).partition(",")
    assert start == f"data:image/{kind};base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert (picture.format, picture.size) == (format, (8, 6))


def test_answers_go_through_the_batches_and_limits_of_the_server(model: ExportedModel):
    asked = []

    def run(images, texts, signature, *_):
        asked.append((list(texts), signature))
        return model.run(images, texts, signature)

    pretended = SimpleNamespace(
        run=run, folder=model.folder, version=model.version, metadata=model.metadata
    )
    limits = Limits(max_waiting_rows=0)
    app = build_app(pretended, limits)
    with TestClient(app) as client, pytest.raises(Busy):
        client.portal.call(
            answer_case, ExportBackend(app.state.batcher.ask, METADATA.said), [], "itchy"
        )
    assert asked == []
    app = build_app(pretended)
    with TestClient(app) as client:
        client.portal.call(
            answer_case, ExportBackend(app.state.batcher.ask, METADATA.said), [], "itchy"
        )
    # the second question leaves out the strongest phrase, so nothing is left
    assert asked == [(["itchy"], "explain"), ([" "], "serving_default")]


def test_python_examples_in_the_readme_run(
    model: ExportedModel, tmp_path: Path, monkeypatch, capsys
):
    shutil.copytree(model.folder, tmp_path / "saved_models" / "eczema" / "1")
    monkeypatch.chdir(tmp_path)
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert "cannot tell" in capsys.readouterr().out  # nothing in this model was fitted


def test_predict_returns_a_table_of_the_answers_of_the_model(model: ExportedModel, tmp_path: Path):
    photo = tmp_path / "skin.jpg"
    Image.new("RGB", (64, 64), (200, 150, 130)).save(photo)
    table = model.predict([None, photo, [photo, photo]], ["itchy", None, None])
    alone = model.run([b""], ["itchy"])
    assert table.loc[0, "eczema"] == pytest.approx(float(alone["eczema"][0]), abs=1e-6)
    assert np.isnan(table.loc[0, "eczema_image"])
    assert np.isnan(table.loc[1, "eczema_text"])
    assert list(table["image_used"]) == [False, True, True]
    assert table.loc[2, "eczema"] == pytest.approx(table.loc[1, "eczema"], abs=1e-6)
    with pytest.raises(DataError, match=r"received \[1, 2\]"):
        model.predict([None], ["a", "b"])
    texts = pd.Series(["itchy", None, "itchy"], index=[8, 2, 5])
    pd.testing.assert_frame_equal(
        model.predict(texts=texts), model.predict([None] * 3, list(texts)).set_axis(texts.index)
    )


def test_run_refuses_unequal_or_empty_lists_and_unknown_signatures(model: ExportedModel):
    for rows in (([b""], ["a", "b"]), ([], [])):
        with pytest.raises(DataError, match="images, texts, clinical: must be equally long"):
            model.run(*rows)
    with pytest.raises(DataError, match="allowed: serving_default, explain; received 'foo'"):
        model.run([b""], ["a"], "foo")


def test_predict_accepts_empty_cells_and_names_a_missing_photo(
    model: ExportedModel, tmp_path: Path
):
    nothing = model.predict([], [])
    one = model.predict([None], ["itchy"])
    assert len(nothing) == 0
    assert nothing.columns.tolist() == one.columns.tolist()
    empty = model.predict([None, float("nan"), pd.NA], [None, float("nan"), pd.NA])
    assert not empty[["image_used", "text_used"]].to_numpy().any()
    assert set(empty["reason"]) == {"nothing could be used"}
    of_each = model.predict(texts=["itchy", None])["reason"].tolist()
    assert [reason == "nothing could be used" for reason in of_each] == [False, True]
    with pytest.raises(DataError, match=r"photos\[1\]: .*none\.jpg: cannot be read: No such"):
        model.predict([None, tmp_path / "none.jpg"], ["a", "b"])


def test_scores_of_repeated_mentions_are_summed():
    cues = [
        Cue(0, 5, "itchy", "itch", "present", "patient", 0.5),
        Cue(10, 15, "Itchy", "itch", "present", "patient", 0.25),
        Cue(20, 25, "itchy", "itch", "negated", "patient", -0.125),
        Cue(30, 33, "dry", "dryness", "present", "patient", None),
    ]
    mentions = [mention for _, group in group_mentions(cues) for mention in group.items()]
    assert sorted(mentions) == [
        (("dry", "present", "patient"), 0.0),
        (("itchy", "negated", "patient"), -0.125),
        (("itchy", "present", "patient"), 0.75),
    ]


def test_threshold_is_not_printed_if_it_rounds_to_the_probability(model: ExportedModel):
    answer = explain(model, b"", TEXT)
    for threshold, said in ((0.42, "above the validation threshold 0.42)"), (0.501, "threshold)")):
        thresholds = dict.fromkeys(THRESHOLDS, threshold)
        shown = replace(answer, eczema=dict.fromkeys(answer.eczema, 0.503), thresholds=thresholds)
        lines = [line for line in format_answer(shown).splitlines() if line.startswith("P(eczema)")]
        assert all(line.endswith(said) for line in lines)
        assert all("0.50" in line for line in lines)


def test_photo_without_evidence_does_not_set_the_colour_scale():
    shown = Heatmap("evidence", (0.5, 0.5), ((0.0, 1.0),), 0.2)
    nothing = Heatmap("evidence", None, ((0.0, 0.0),), 0.9)
    assert find_full_colour([nothing, shown]) == 0.2
    assert find_full_colour([nothing, None]) is None
