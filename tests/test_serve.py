"""Tests of the server: contract, batching, limits, hostile requests, and real processes."""

import asyncio
import base64
import contextlib
import http.client
import io
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from google.protobuf.json_format import ParseDict
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from test_serving import METADATA, photo
from test_several_photos import answer_rows

from eczema_tf import predict
from eczema_tf.data.photo.upright import upright_jpeg
from eczema_tf.errors import EczemaError
from eczema_tf.schema import CONSISTENCY, NOTICE, SEVERITY
from eczema_tf.serve import main
from eczema_tf.serving.client import MAX_BODY_MB, fetch_metadata, predict_remotely
from eczema_tf.serving.exported import STEP_ROWS, ExportedModel
from eczema_tf.serving.graph.signature import EXPLAIN, SERVE, SIGNATURES
from eczema_tf.serving.rest import server as server_module
from eczema_tf.serving.rest.app import build_app
from eczema_tf.serving.rest.batching import Batcher, Busy
from eczema_tf.serving.rest.contract import (
    BadRequest,
    ModelFault,
    encode_answer,
    parse_request,
    pool_photos,
)
from eczema_tf.serving.rest.limits import BodyLimits, Limits
from eczema_tf.serving.rest.metrics import Metrics, name_status
from eczema_tf.workflows import serve as serve_workflow

PREDICT = "/v1/models/eczema:predict"
THRESHOLDS = METADATA.thresholds
SECRET = "Xanthippe"  # marks text that a patient wrote
PATIENCE_S = 120
JSON = {"Content-Type": "application/json"}


def encoded(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


def body_of(*rows: tuple[object, object], **more: object) -> bytes:
    return json.dumps(
        {**more, "instances": [{"image": image, "text": text} for image, text in rows]}
    ).encode()


# The contract's functions.


def test_row_and_column_formats_parse_to_the_same_question():
    images, texts = [encoded(b"abc"), "", encoded(b"\x00\xff")], ["it itches", "", "dry"]
    by_row = parse_request(body_of(*zip(images, texts, strict=True)), 10)
    by_column = parse_request(json.dumps({"inputs": {"text": texts, "image": images}}).encode(), 10)
    assert by_row == (
        [b"abc", b"", b"\x00\xff"],
        texts,
        SERVE,
        True,
        [0, 1, 2],
        [False] * 3,
        [""] * 3,
    )
    assert by_column == by_row._replace(by_row=False)


def test_values_are_strings_or_base64_as_in_tensorflow_serving():
    question = parse_request(
        body_of(
            ("a\x00é", encoded("é".encode())),
            ({"b64": " YW Jj\n"}, {"b64": "YQ"}),
            ("", encoded(b"a\xff")),
        ),
        3,
    )
    assert question.images == ["a\x00é".encode(), b"abc", b""]
    assert question.texts == ["é", "a", "a\ufffd"]


def test_each_photo_of_a_case_becomes_a_row_with_its_text():
    several = [encoded(b"a"), "b"]
    question = parse_request(body_of((several, "x"), ("c", "y"), ([], "z")), 4)
    assert question.images == [b"a", b"b", b"c", b""]
    assert question.texts == ["x", "x", "y", "z"]
    assert question.cases == [0, 0, 1, 2]
    assert question.listed == [True, False, True]


def test_list_of_photos_gets_one_answer_and_a_heatmap_per_photo():
    question = parse_request(body_of((["a", "b"], ""), ("c", ""), (["d"], "")), 4)
    numbers = np.arange(4, dtype="float32")
    explained = {"heatmap": numbers.reshape(4, 1, 1), "heatmap_scale": numbers}
    outputs = answer_rows({"eczema": 0.9}, {"eczema": 0.1}, {"eczema": 0.3}, {"eczema": 0.7})
    pooled = pool_photos(question, {**outputs, **explained}, None)
    told = json.loads(encode_answer(pooled, by_row=True))["predictions"]
    assert [row["eczema"] for row in told] == pytest.approx([0.5, 0.3, 0.7])
    assert [row["heatmap"] for row in told] == [[[[0]], [[1]]], [[2]], [[[3]]]]
    assert [row["heatmap_scale"] for row in told] == [[0, 1], 2, [3]]


@pytest.mark.parametrize(
    ("name", "signature"),
    [({}, SERVE), ({"signature_name": ""}, SERVE), ({"signature_name": EXPLAIN}, EXPLAIN)],
)
def test_signature_name_is_optional(name: dict[str, str], signature: str):
    assert parse_request(body_of(("", "x"), **name), 1).signature == signature


GOOD_ROW = {"image": "", "text": ""}
BAD_BODIES = {
    "empty": (b"", "not JSON"),
    "no JSON": (b"instances = [1, 2]", "not JSON"),
    "cut": (b'{"instances": [{"image": "', "not JSON"),
    "not UTF-8": (b'{"instances": [{"image": "", "text": "\xff"}]}', "not JSON"),
    "UTF-16": ('{"instances": []}'.encode("utf-16"), "not JSON"),
    "number of 9999 digits": (b'{"instances": ' + b"9" * 9999 + b"}", "not a number"),
    "a list": (b"[]", "must be a JSON object, not a list"),
    "null": (b"null", "must be a JSON object, not null"),
    "nested": (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
    "nested objects": (b'{"instances":' * 50_000, "nested too deeply"),
    "many values": (b'{"instances": [' + b"[]," * 100_000 + b"[]]}", "brackets and commas"),
    "neither": (b"{}", 'either "instances"'),
    "both": (
        json.dumps({"instances": [GOOD_ROW], "inputs": {"image": [""], "text": [""]}}).encode(),
        "not both",
    ),
    "signature is a number": (
        body_of(("", ""), signature_name=5),
        "signature_name: must be a string, not a number",
    ),
    "signature is null": (body_of(("", ""), signature_name=None), "not null"),
    "unknown signature": (
        body_of(("", ""), signature_name="train"),
        "'train' is unknown; there are serving_default, explain",
    ),
    "no rows": (b'{"instances": []}', "0 rows"),
    "too many rows": (body_of(*[("", "")] * 4), "4 rows; allowed: 1 to 3"),
    "bare values": (
        b'{"instances": ["it itches"]}',
        r"instances\[0\]: must be an object .* not a string",
    ),
    "bare base64": (b'{"instances": [{"b64": ""}]}', "has no image and no text"),
    "an object of rows": (
        json.dumps({"instances": GOOD_ROW}).encode(),
        "must be a list of rows, not an object",
    ),
    "no image": (
        b'{"instances": [{"image": "", "text": ""}, {"text": "x"}]}',
        r'instances\[1\]: has no image; give "" for none',
    ),
    "no text": (b'{"instances": [{"image": ""}]}', r"instances\[0\]: has no text"),
    "unknown input": (
        json.dumps({"instances": [{**GOOD_ROW, "age": 3}]}).encode(),
        "'age' is not an input",
    ),
    "a Cyrillic letter in a name": (
        json.dumps({"instances": [{**GOOD_ROW, "te\u0445t": ""}]}).encode(),
        r"'te\\u0445t' is not an input; there are image, text",
    ),
    "too many photos": (body_of(([""] * 41, "")), "41 rows; .* each photo counts as one"),
    "a photo of several is a list": (
        body_of((["", [""]], "")),
        r"instances\[0\].image\[1\]: must be a string .* not a list",
    ),
    "image is a number": (
        body_of((3, "")),
        r"instances\[0\].image: must be a string .* not a number",
    ),
    "text is true": (
        body_of(("", ""), ("", True)),
        r"instances\[1\].text: must be a string .* not a boolean",
    ),
    "text is NaN": (b'{"instances": [{"image": "", "text": NaN}]}', "not a number"),
    "text is a list": (body_of(("", ["x"])), "not a list"),
    "a text that would be counted for minutes": (
        body_of(("", "a"), (["", ""], "a " * 50_001)),
        r"instances\[1\].text: 100,002 bytes; allowed: 100,000",
    ),
    "not base64": (body_of(({"b64": "?"}, "")), "b64 is not base64"),
    "base64 with a letter missing": (body_of(({"b64": "AAAAA"}, "")), "b64 is not base64"),
    "base64 beyond ASCII": (body_of(({"b64": "ééé="}, "")), "b64 is not base64"),
    "base64 of a number": (body_of(({"b64": 3}, "")), "not an object"),
    "base64 and more": (body_of(({"b64": "", "x": ""}, "")), "not an object"),
    "a name twice": (
        b'{"instances": [{"image": "", "text": "dry", "text": "round"}]}',
        "'text' is given twice in one object",
    ),
    "half a surrogate pair": (
        rb'{"instances": [{"image": "", "text": "\ud800"}]}',
        r"instances\[0\].text: contains half a surrogate pair",
    ),
    "inputs are a list": (b'{"inputs": ["x"]}', "inputs: must be an object .* not a list"),
    "a column is a value": (
        b'{"inputs": {"image": "", "text": ["x"]}}',
        "inputs.image: must be a list, one value per row, not a string",
    ),
    "a column is missing": (b'{"inputs": {"image": [""]}}', "inputs: has no text"),
    "an unknown column": (
        b'{"inputs": {"image": [""], "text": [""], "age": [3]}}',
        "'age' is not an input",
    ),
    "columns unequal": (
        b'{"inputs": {"image": [""], "text": ["", ""]}}',
        "equally long, not {'image': 1, 'text': 2}",
    ),
    "columns empty": (b'{"inputs": {"image": [], "text": []}}', "0 rows"),
    "a column's value": (
        b'{"inputs": {"image": ["", 3], "text": ["", ""]}}',
        r"inputs.image\[1\]: must be a string",
    ),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_bad_body_is_refused_with_a_specific_message(name: str):
    body, message = BAD_BODIES[name]
    with pytest.raises(BadRequest, match=message):
        parse_request(body, 3)


@pytest.mark.parametrize(
    "body",
    [
        f'{{"instances": [{{"image": "", "text": "{SECRET}]}}'.encode(),
        f'{{"instances": [{{"image": "", "text": "\xff{SECRET}"}}]}}'.encode("latin-1"),
        f'{{"instances": ["{SECRET}"]}}'.encode(),
        body_of(("", {"b64": SECRET + "?"})),
        body_of(("", [SECRET])),
        rf'{{"instances": [{{"image": "", "text": "{SECRET}\ud800"}}]}}'.encode(),
    ],
)
def test_error_message_never_repeats_content_of_the_request(body: bytes):
    with pytest.raises(BadRequest) as caught:
        parse_request(body, 3)
    assert SECRET not in str(caught.value)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.fixed_dictionaries({"b64": st.text()}),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["image", "text", "b64", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
BODIES = st.dictionaries(
    st.sampled_from(["instances", "inputs", "signature_name"]), JSON_VALUES, max_size=3
)


# A server thread may use `random` while Hypothesis draws; the strategy itself does not.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@given(st.binary(max_size=60) | BODIES.map(lambda body: json.dumps(body).encode()))
@settings(max_examples=150)
def test_any_body_is_either_parsed_or_refused(body: bytes):
    with contextlib.suppress(BadRequest):
        question = parse_request(body, 3)
        assert len(question.images) == len(question.texts) in (1, 2, 3)


OUTPUTS = {
    "eczema": np.array([0.1, 1 / 3], "float32"),
    "severity": np.array([[0.5, 0.25, 0.25], [1, 0, 0]], "float32"),
    "image_used": np.array([True, False]),
    "token_end": np.array([[1, 2], [3, 0]], "int32"),
    "status": np.array([b"ok", "é\xff".encode("latin-1")], dtype=object),
}


def test_answers_are_encoded_by_row_or_column_with_exact_floats():
    first, second = json.loads(encode_answer(OUTPUTS, by_row=True))["predictions"]
    assert first == {
        "eczema": np.float32(0.1),
        "severity": [0.5, 0.25, 0.25],
        "image_used": True,
        "token_end": [1, 2],
        "status": "ok",
    }
    assert np.float32(second["eczema"]) == OUTPUTS["eczema"][1]
    assert second["status"] == "\ufffd\ufffd"
    by_column = json.loads(encode_answer(OUTPUTS, by_row=False))["outputs"]
    assert {name: values[1] for name, values in by_column.items()} == second


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_value_is_a_model_fault(value: float):
    with pytest.raises(ModelFault, match="not finite"):
        encode_answer({**OUTPUTS, "eczema": np.array([0.5, value], "float32")}, by_row=False)


# Batching.


def echo(
    images: list[bytes], texts: list[str], signature: str, *_: object
) -> dict[str, np.ndarray]:
    """Returns the question as the answer, so that a row in the wrong place is noticed."""
    rows = [
        f"{image.decode()}|{text}|{signature}".encode()
        for image, text in zip(images, texts, strict=True)
    ]
    return {
        "row": np.array(rows, dtype=object),
        "status": np.array([b"ok"] * len(rows), dtype=object),
    }


def run_batcher(run: Callable, work: Callable, **limits) -> object:
    async def go() -> object:
        async with Batcher(run, Limits(**limits), Metrics()) as batcher:
            return await asyncio.wait_for(work(batcher), PATIENCE_S)

    return asyncio.run(go())


def test_concurrent_requests_share_batches_and_get_their_own_rows():
    batches, running = [], threading.Semaphore(1)

    def run(
        images: list[bytes], texts: list[str], signature: str, *_: object
    ) -> dict[str, np.ndarray]:
        assert running.acquire(blocking=False)  # a signature runs one batch at a time
        batches.append(len(images))
        time.sleep(0.01)
        running.release()
        return echo(images, texts, signature)

    async def ask(batcher: Batcher, number: int) -> None:
        await asyncio.sleep(number % 7 / 500)
        names = [f"{number}.{row}" for row in range(number % 3 + 1)]
        answer = await batcher.ask([name.encode() for name in names], names, SERVE)
        assert answer["row"].tolist() == [f"{name}|{name}|{SERVE}".encode() for name in names]

    async def crowd(batcher: Batcher) -> None:
        await asyncio.gather(*(ask(batcher, number) for number in range(60)))

    run_batcher(run, crowd, batch_rows=8)
    assert sum(batches) == 120
    assert max(batches) <= 8 + 2  # requests stay whole, and the last may have three rows
    assert len(batches) < 40


def test_lone_request_does_not_wait_for_a_full_batch():
    async def work(batcher: Batcher) -> None:
        for _ in range(3):
            assert len((await batcher.ask([b""], ["x"], SERVE))["row"]) == 1

    run_batcher(echo, work)


def test_failing_request_does_not_fail_the_others():
    def run(
        images: list[bytes], texts: list[str], signature: str, *_: object
    ) -> dict[str, np.ndarray]:
        if SECRET in texts:
            raise RuntimeError(SECRET)
        return echo(images, texts, signature)

    async def work(batcher: Batcher) -> list:
        texts = ["a", "b", SECRET, "c", SECRET, "d"]
        return await asyncio.gather(
            *(batcher.ask([b""], [text], SERVE) for text in texts), return_exceptions=True
        )

    answers = run_batcher(run, work)
    assert [type(answer) for answer in answers] == [dict, dict, ModelFault, dict, ModelFault, dict]
    assert [answer["row"][0] for answer in answers if isinstance(answer, dict)] == [
        f"|{text}|{SERVE}".encode() for text in "abcd"
    ]
    assert SECRET not in str(answers[2])


def test_model_that_returns_too_few_rows_is_a_fault():
    async def work(batcher: Batcher) -> None:
        with pytest.raises(ModelFault):
            await batcher.ask([b"", b""], ["", ""], SERVE)

    run_batcher(lambda *_: {"status": np.array([b"ok"], dtype=object)}, work)


class Gate:
    """A fake model that waits until it is opened, and records the texts it is asked about."""

    def __init__(self):
        self.open, self.entered, self.asked = threading.Event(), threading.Event(), []

    def __call__(
        self, images: list[bytes], texts: list[str], signature: str, *_: object
    ) -> dict[str, np.ndarray]:
        self.asked.append(list(texts))
        self.entered.set()
        assert self.open.wait(PATIENCE_S)
        return echo(images, texts, signature)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


def test_request_cancelled_while_it_waits_never_reaches_the_model():
    gate = Gate()

    async def work(batcher: Batcher) -> None:
        running = asyncio.create_task(batcher.ask([b""], ["running"], SERVE))
        await until(gate.entered.is_set)
        gone, staying = (
            asyncio.create_task(batcher.ask([b""], [text], SERVE)) for text in ("gone", "staying")
        )
        await asyncio.sleep(0)
        gone.cancel()
        running.cancel()  # it already runs, so only its answer is discarded
        gate.open.set()
        assert (await staying)["row"][0] == f"|staying|{SERVE}".encode()

    run_batcher(gate, work)
    assert gate.asked == [["running"], ["staying"]]


def test_batch_ends_when_nobody_waits_for_it_any_more():
    wanted, ended = [], threading.Event()

    def run(*given: Any) -> dict[str, np.ndarray]:
        *rows, is_wanted = given
        if rows[1] == ["next"]:
            return echo(*rows)
        for _ in range(int(PATIENCE_S / 0.005)):
            wanted.append(is_wanted())
            if not wanted[-1]:
                ended.set()
                raise CancelledError
            time.sleep(0.005)
        raise AssertionError("still wanted")

    async def work(batcher: Batcher) -> None:
        running = asyncio.create_task(batcher.ask([b""], ["long"], SERVE))
        await until(lambda: bool(wanted))
        running.cancel()
        await until(ended.is_set)
        assert (await batcher.ask([b""], ["next"], SERVE))["row"][0] == f"|next|{SERVE}".encode()

    run_batcher(run, work)
    assert wanted[0]


def test_full_queue_refuses_requests_until_there_is_room_again():
    gate = Gate()

    async def work(batcher: Batcher) -> None:
        running = asyncio.create_task(batcher.ask([b""], ["running"], SERVE))
        await until(gate.entered.is_set)
        waiting = asyncio.create_task(batcher.ask([b""] * 2, ["x"] * 2, SERVE))
        await asyncio.sleep(0)
        with pytest.raises(Busy, match="2 rows are waiting"):
            await batcher.ask([b""] * 2, ["x"] * 2, EXPLAIN)
        gate.open.set()
        await asyncio.gather(running, waiting)
        assert len((await batcher.ask([b""] * 3, ["x"] * 3, SERVE))["row"]) == 3

    run_batcher(gate, work, max_waiting_rows=3)


def test_an_explanation_does_not_hold_up_a_prediction():
    barrier = threading.Barrier(2)  # passes only if both signatures run at the same time

    def run(
        images: list[bytes], texts: list[str], signature: str, *_: object
    ) -> dict[str, np.ndarray]:
        barrier.wait(PATIENCE_S)
        return echo(images, texts, signature)

    async def work(batcher: Batcher) -> None:
        answers = await asyncio.gather(
            *(batcher.ask([b""], ["x"], signature) for signature in SIGNATURES)
        )
        assert [answer["row"][0] for answer in answers] == [
            f"|x|{signature}".encode() for signature in SIGNATURES
        ]

    run_batcher(run, work)


def test_waiting_requests_are_refused_when_the_server_stops():
    gate = Gate()

    async def go() -> None:
        async with Batcher(gate, Limits(), Metrics()) as batcher:
            running = asyncio.create_task(batcher.ask([b""], ["x"], SERVE))
            await until(gate.entered.is_set)
            waiting = asyncio.create_task(batcher.ask([b""], ["x"], SERVE))
            await asyncio.sleep(0)
        gate.open.set()
        for asked in (running, waiting, batcher.ask([b""], ["x"], SERVE)):
            with pytest.raises(Busy, match="stopping"):
                await asyncio.wait_for(asked, PATIENCE_S)

    asyncio.run(go())


# The application, with a real model.


@pytest.fixture(scope="module")
def export(small_export: Path) -> Path:
    return small_export.parent


@pytest.fixture(scope="module")
def model(export: Path) -> ExportedModel:
    return ExportedModel(export)


def test_warm_up_runs_every_signature_on_the_largest_inputs(
    model: ExportedModel, monkeypatch: pytest.MonkeyPatch
):
    asked, run = [], model.run

    def spy(images, texts, signature):
        sizes = [Image.open(io.BytesIO(image)).size for image in images if image]
        asked.append((signature, sizes))
        outputs = run(images, texts, signature)
        assert outputs["image_used"].tolist() == [True, True, False]
        assert b"text: read to word" in outputs["status"][2]  # longer than the model reads
        return outputs

    monkeypatch.setattr(model, "run", spy)
    model.warm_up()
    assert asked == [(signature, [(16_384, 762)] * 2) for signature in (SERVE, EXPLAIN)]


@pytest.fixture(scope="module")
def client(model: ExportedModel) -> Iterator[TestClient]:
    with TestClient(build_app(model, Limits(max_rows=40)), headers=JSON) as client:
        yield client


def fake_model(model: ExportedModel, run: Callable) -> SimpleNamespace:
    """Builds a model from a function, with the metadata of a real one."""
    return SimpleNamespace(
        run=run, folder=model.folder, version=model.version, metadata=model.metadata
    )


ROWS = [
    (photo(), "my skin is itchy"),
    (b"", "the rash is red"),
    (photo("PNG", seed=1), ""),
    (b"<html>" + b"x" * 99, "dry"),
]
STATUSES = ["ok", "ok", "ok", "photo: cannot be read: not an image of a known format"]


def read_rows() -> tuple[list[bytes], list[str]]:
    """Returns `ROWS` as the model sees them: upright photos, and b"" in place of a bad one."""
    images = [upright_jpeg(image) if image[:1] not in (b"", b"<") else b"" for image, _ in ROWS]
    return images, [text for _, text in ROWS]


@pytest.mark.parametrize("signature", SIGNATURES)
def test_server_returns_the_answers_of_the_model(
    client: TestClient, model: ExportedModel, signature: str
):
    images, texts = ([row[place] for row in ROWS] for place in (0, 1))
    expected = model.run(*read_rows(), signature)
    by_row = client.post(
        PREDICT,
        content=body_of(
            *((encoded(image), text) for image, text in ROWS), signature_name=signature
        ),
    )
    assert by_row.headers["content-type"] == "application/json"
    assert by_row.headers["cache-control"] == "no-store"
    columns = {
        "signature_name": signature,
        "inputs": {"image": [encoded(image) for image in images], "text": texts},
    }
    by_column = client.post("/v1/models/eczema/versions/3:predict", json=columns).json()["outputs"]
    for name, values in expected.items():
        if name == "status":
            continue
        plain = [value.decode() for value in values] if values.dtype == object else values.tolist()
        assert [row[name] for row in by_row.json()["predictions"]] == by_column[name]
        if values.dtype == np.float32:
            np.testing.assert_allclose(by_column[name], plain, atol=1e-6)
        else:
            assert by_column[name] == plain
    for says, status in zip(STATUSES, by_column["status"], strict=True):
        assert status.startswith(says)


def test_concurrent_requests_get_the_same_answers_as_single_ones(
    client: TestClient, model: ExportedModel
):
    alone = model.run(*read_rows())["eczema"]

    def ask(number: int) -> None:
        place = number % len(ROWS)
        image, text = ROWS[place]
        row = client.post(PREDICT, content=body_of((encoded(image), text))).json()["predictions"][0]
        assert row["eczema"] == pytest.approx(alone[place], abs=1e-6)
        assert row["status"].startswith(STATUSES[place])

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(ask, range(60)))


@pytest.mark.parametrize("path", ["/v1/models/eczema", "/v1/models/eczema/versions/3"])
def test_status_has_the_format_of_tensorflow_serving(client: TestClient, path: str):
    version = {
        "version": "3",
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    assert client.get(path).json() == {"model_version_status": [version]}


def test_metadata_is_that_of_tensorflow_serving_with_our_own_section(
    client: TestClient, model: ExportedModel
):
    metadata = client.get("/v1/models/eczema/metadata").json()
    assert metadata["model_spec"] == {"name": "eczema", "signature_name": "", "version": "3"}
    graph = saved_model_pb2.SavedModel.FromString(
        (model.folder / "saved_model.pb").read_bytes()
    ).meta_graphs[0]
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    assert set(SIGNATURES) <= set(signatures) == set(graph.signature_def)
    for name, signature in signatures.items():
        assert ParseDict(signature, meta_graph_pb2.SignatureDef()) == graph.signature_def[name]
    assert metadata["metadata"]["eczema_tf"] == {
        "notice": NOTICE,
        "labels": {"consistency": [*CONSISTENCY], "severity": [*SEVERITY]},
        "thresholds": THRESHOLDS,
        "undecided": {kind: [*bounds] for kind, bounds in METADATA.undecided.items()},
    }


@pytest.mark.parametrize("name", BAD_BODIES)
def test_bad_body_is_a_400_with_the_message(client: TestClient, name: str):
    if name == "too many rows":
        body, message = body_of(*[("", "")] * 41), "41 rows"
    else:
        body, message = BAD_BODIES[name]
    answer = client.post(PREDICT, content=body)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert re.search(message, answer.json()["error"])


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", PREDICT, 405),
        ("GET", "/v1/models/eczema/versions/3:predict", 405),
        ("DELETE", "/v1/models/eczema", 405),
        ("OPTIONS", PREDICT, 405),
        ("POST", "/v1/models/eczema/metadata", 405),
        ("POST", "/v1/models/other:predict", 404),
        ("POST", "/v1/models/eczema/versions/6:predict", 404),
        ("POST", f"/v1/models/eczema/versions/{'9' * 6000}:predict", 404),
        ("POST", "/v1/models/eczema/versions/HELLO:predict", 404),
        ("POST", "/v1/models/eczema:classify", 404),
        ("GET", "/v1/models/eczema/versions/6", 404),
        ("GET", "/v1/models/eczema/versions/6/metadata", 404),
        ("GET", "/v1/models/other", 404),
        ("GET", "/v1/models", 404),
        ("GET", "/v1/models/eczema/", 404),
        ("GET", "/nothing", 404),
        ("GET", "/docs", 404),
        ("GET", "/openapi.json", 404),
    ],
)
def test_wrong_addresses_and_methods_are_refused(
    client: TestClient, method: str, path: str, code: int
):
    answer = client.request(method, path, content=body_of(("", "x")), follow_redirects=False)
    assert answer.status_code == code
    assert list(answer.json()) == ["error"]
    assert code != 405 or answer.headers["allow"] in ("GET", "POST")


@pytest.mark.parametrize(
    "kind",
    [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"],
)
def test_content_types_that_other_sites_could_send_are_refused(
    model: ExportedModel, kind: str | None
):
    with TestClient(build_app(fake_model(model, None))) as client:
        headers = {"Content-Type": kind} if kind else {}
        answer = client.post(PREDICT, content=body_of(("", "x")), headers=headers)
        asked = {"Origin": "http://elsewhere.example", "Access-Control-Request-Method": "POST"}
        preflight = client.options(PREDICT, headers=asked)
    assert answer.status_code == 415
    assert answer.json() == {"error": "Content-Type: must be application/json"}
    assert preflight.status_code == 405
    for reply in (answer, preflight):
        assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
def test_json_is_accepted_with_a_charset_or_in_capitals(client: TestClient, kind: str):
    answer = client.post(PREDICT, content=body_of(("", "x")), headers={"Content-Type": kind})
    assert answer.status_code == 200


def test_run_checks_before_each_step_whether_the_answer_is_wanted(model: ExportedModel):
    rows, answers = 2 * STEP_ROWS[SERVE], iter([True, False])
    with pytest.raises(CancelledError):
        model.run([b""] * rows, ["itchy"] * rows, is_wanted=lambda: next(answers))
    assert next(answers, None) is None  # both were used


def test_photos_of_several_formats_are_read_and_bad_ones_left_out(model: ExportedModel):
    asked: list[bytes] = []

    def run(
        images: list[bytes], texts: list[str], signature: str, *_: object
    ) -> dict[str, np.ndarray]:
        asked.extend(images)
        return model.run(images, texts, signature)

    clear = Image.new("RGBA", (80, 60), (200, 90, 90, 40))
    images = {kind: io.BytesIO() for kind in ("PNG", "WEBP", "TIFF")}
    for kind, buffer in images.items():
        clear.save(buffer, kind)
    rows = [(encoded(buffer.getvalue()), "itchy") for buffer in images.values()]
    rows += [(encoded(b"\x89PNG\r\n\x1a\n" + bytes(200)), "\x01")]
    with TestClient(build_app(fake_model(model, run)), headers=JSON) as client:
        answered = client.post(PREDICT, content=body_of(*rows)).json()["predictions"]
    assert asked == [*(upright_jpeg(buffer.getvalue()) for buffer in images.values()), b""]
    assert [row["image_used"] for row in answered] == [True] * 3 + [False]
    assert answered[3]["status"].startswith("photo: cannot be read: truncated or damaged")
    assert answered[3]["status"].endswith("; text: nothing readable in it")


@pytest.mark.parametrize(("coding", "code"), [("gzip", 415), ("GZIP", 415), ("Identity", 200)])
def test_compressed_bodies_are_refused(client: TestClient, coding: str, code: int):
    question = body_of(("", "x"))
    answered = client.post(PREDICT, content=question, headers={"Content-Encoding": coding})
    assert answered.status_code == code


def test_large_bodies_are_refused_with_and_without_content_length(model: ExportedModel):
    chunks = (b"x" * 600 for _ in range(2))
    with TestClient(build_app(model, Limits(max_body_bytes=1000)), headers=JSON) as client:
        for content in (b"x" * 1001, chunks):
            answer = client.post(PREDICT, content=content)
            assert answer.status_code == 413
            assert answer.json() == {"error": "the body is larger than 1000 bytes"}
        assert client.post(PREDICT, content=body_of(("", "x"))).status_code == 200


def test_total_size_of_the_bodies_in_memory_is_limited():
    read = asyncio.Event()

    async def app(scope, receive, send) -> None:
        await receive()
        await read.wait()

    async def work() -> None:
        limited = BodyLimits(app, Limits(max_body_bytes=10, max_held_bytes=15))

        async def ask() -> None:
            await limited({"type": "http", "headers": []}, receive, None)

        async def receive() -> dict:
            return {"type": "http.request", "body": b"x" * 10, "more_body": False}

        first = asyncio.create_task(ask())
        await asyncio.sleep(0)
        with pytest.raises(HTTPException) as caught:
            await ask()
        assert caught.value.status_code == 503
        assert caught.value.headers == {"Retry-After": "1"}
        read.set()
        await first
        await ask()  # the first body no longer counts

    asyncio.run(work())


def test_busy_server_answers_503_with_retry_after(model: ExportedModel):
    gate = Gate()
    with (
        TestClient(
            build_app(fake_model(model, gate), Limits(max_waiting_rows=1)), headers=JSON
        ) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        running = pool.submit(client.post, PREDICT, content=body_of(("", "running")))
        assert gate.entered.wait(PATIENCE_S)
        busy = client.post(PREDICT, content=body_of(("", "x"), ("", "x")))
        assert busy.status_code == 503
        assert busy.headers["retry-after"] == "1"
        assert "try again" in busy.json()["error"]
        gate.open.set()
        assert running.result().status_code == 200


def test_an_answer_that_takes_too_long_is_a_504(model: ExportedModel):
    gate = Gate()
    with TestClient(
        build_app(fake_model(model, gate), Limits(answer_timeout_s=0.05)), headers=JSON
    ) as client:
        answer = client.post(PREDICT, content=body_of(("", "x")))
        gate.open.set()
    assert answer.status_code == 504
    assert "no answer within" in answer.json()["error"]


def test_nan_from_the_model_is_a_500_for_that_request_only(model: ExportedModel):
    def run(
        images: list[bytes], texts: list[str], signature: str, *_: object
    ) -> dict[str, np.ndarray]:
        return {
            **echo(images, texts, signature),
            "eczema": np.array([np.nan if text == "bad" else 0.5 for text in texts], "float32"),
        }

    with TestClient(build_app(fake_model(model, run)), headers=JSON) as client:
        assert (
            client.post(PREDICT, content=body_of(("", "good"))).json()["predictions"][0]["eczema"]
            == 0.5
        )
        answer = client.post(PREDICT, content=body_of(("", "bad")))
    assert answer.status_code == 500
    assert answer.json() == {"error": "the model returned a value that is not finite"}


def test_logs_and_metrics_contain_nothing_from_the_requests(
    model: ExportedModel, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)

    def run(
        images: list[bytes], texts: list[str], signature: str, *_: object
    ) -> dict[str, np.ndarray]:
        if "fail" in texts[0]:
            raise RuntimeError(texts[0])
        return {
            "status": np.array([f"photo: {SECRET}".encode()], dtype=object),
            "odd": np.array([object()]),
        }  # cannot be encoded

    with TestClient(
        build_app(fake_model(model, run)), raise_server_exceptions=False, headers=JSON
    ) as client:
        failed = client.post(PREDICT, content=body_of(("", f"fail {SECRET}")))
        unforeseen = client.post(f"{PREDICT}?{SECRET}", content=body_of((SECRET, SECRET)))
        client.get(f"/{SECRET}")
        metrics = client.get("/metrics").text
    assert failed.status_code == unforeseen.status_code == 500
    assert failed.json() == {"error": "the model failed on this request"}
    assert unforeseen.json() == {"error": "internal error"}
    assert "RuntimeError" in caplog.text
    assert SECRET not in "".join(
        str(vars(record)) for record in caplog.records if record.name.startswith("eczema_tf")
    )
    assert SECRET not in metrics


def test_metrics_count_requests_batches_and_row_statuses(model: ExportedModel):
    with TestClient(build_app(model), headers=JSON) as client:
        client.post(
            PREDICT, content=body_of(("", "itchy"), ("abc", "itchy"), ("abc", "\x01"), ("", ""))
        )
        client.post(PREDICT, content=b"nonsense")
        client.get("/somewhere")
        text = client.get("/metrics").text
    for line in (
        f'eczema_requests_total{{code="200",route="{PREDICT}"}} 1.0',
        f'eczema_requests_total{{code="400",route="{PREDICT}"}} 1.0',
        'eczema_requests_total{code="404",route="other"} 1.0',
        f'eczema_request_seconds_count{{route="{PREDICT}"}} 2.0',
        'eczema_batch_rows_sum{signature="serving_default"} 4.0',
        'eczema_batch_seconds_count{signature="serving_default"} 1.0',
        'eczema_rows_total{signature="serving_default",status="ok"} 1.0',
        'eczema_rows_total{signature="serving_default",status="photo"} 1.0',
        'eczema_rows_total{signature="serving_default",status="photo and text"} 1.0',
        'eczema_rows_total{signature="serving_default",status="other"} 1.0',
        "eczema_waiting_rows 0.0",
        "process_resident_memory_bytes",
    ):
        assert line in text


def test_row_statuses_are_counted_by_a_few_kinds():
    assert name_status("text: nothing readable in it; photo: cannot be decoded") == "photo and text"
    assert name_status(f"{SECRET}: photo") == "other"
    assert name_status("photo 2: cannot be decoded; photo 3: is too large") == "photo"


def test_health_and_readiness_probes(model: ExportedModel):
    app = build_app(model)
    assert TestClient(app).get("/healthz").status_code == 200
    assert TestClient(app).get("/readyz").status_code == 503  # the lifespan has not begun
    with TestClient(app) as client:
        assert client.get("/readyz").json() == {"status": "ready"}
    stopped = TestClient(app).get("/readyz")
    assert (stopped.status_code, stopped.headers["retry-after"]) == (503, "1")


def test_plain_page_has_the_notice_and_the_model_address(client: TestClient):
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert NOTICE in page.text
    assert "/v1/models/eczema:predict" in page.text
    assert page.headers["content-security-policy"] == "default-src 'none'"


def test_plain_page_shows_markup_in_the_notice_as_text(model: ExportedModel):
    metadata = model.metadata.model_copy(update={"notice": "<script>alert(1)</script>"})
    told = SimpleNamespace(**vars(fake_model(model, None)) | {"metadata": metadata})
    page = TestClient(build_app(told)).get("/").text
    assert "<strong>&lt;script&gt;alert(1)&lt;/script&gt;</strong>" in page


def test_mounted_page_does_not_shadow_the_api(model: ExportedModel):
    def mount(app: FastAPI) -> None:
        async def everything(request) -> PlainTextResponse:
            return PlainTextResponse(
                str(len((await app.state.batcher.ask([b""], ["itchy"], SERVE))["eczema"]))
            )

        app.mount("/", Starlette(routes=[Route("/{path:path}", everything)]))

    with TestClient(build_app(model, mount=mount), headers=JSON) as client:
        assert client.get("/").text == client.get("/some/where").text == "1"
        assert client.get("/v1/models/other").json() == {"error": "Not Found"}
        assert client.delete("/v1/models/eczema").status_code == 405
        assert client.get("/healthz").json() == {"status": "live"}
        assert [client.head(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]


# uvicorn in a thread, without TensorFlow.


@contextlib.contextmanager
def running(app, **options) -> Iterator[tuple[str, int]]:
    listener = server_module.bind("127.0.0.1", 0)
    config = uvicorn.Config(app, http="h11", ws="none", log_config=None, **options)
    server = server_module.PromptServer(config, lambda: None)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield listener.getsockname()
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
    assert not thread.is_alive()


POST = b"POST / HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"POST /v1/mod",
        POST + b"Content-Length: 9\r\n\r\n{",
        POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n",
    ],
    ids=["nothing", "head", "body", "chunk"],
)
def test_stalled_request_is_cut_off(begun: bytes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server_module, "REQUEST_TIMEOUT_S", 0.2)

    async def read_all(request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    application = Starlette(routes=[Route("/", read_all, methods=["POST"])])
    with (
        running(application) as address,
        socket.create_connection(address, PATIENCE_S) as connection,
    ):
        connection.sendall(begun)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""


def test_body_that_trickles_in_is_cut_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server_module, "REQUEST_TIMEOUT_S", 0.3)

    async def read_all(request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    application = Starlette(routes=[Route("/", read_all, methods=["POST"])])
    with (
        running(application) as address,
        socket.create_connection(address, PATIENCE_S) as connection,
    ):
        connection.sendall(POST + b"Content-Length: 999999\r\n\r\n")
        end = time.monotonic() + PATIENCE_S
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < end:
                connection.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() < end


def test_answer_that_the_client_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server_module, "REQUEST_TIMEOUT_S", 0.2)
    size, is_cut_off = 30_000_000, threading.Event()  # more than the buffers of the system hold

    async def answer(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(size), "more_body": True})
        await send({"type": "http.response.body"})  # waits until the client has read most of it
        is_cut_off.set()

    with (
        running(answer, lifespan="off") as address,
        socket.create_connection(address, PATIENCE_S) as connection,
    ):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert is_cut_off.wait(PATIENCE_S)
        assert len(read_all(connection)) < size


def test_reading_the_answer_in_steps_counts_as_progress():
    left = [2_500_000, 2_400_000, 1_900_000, 900_000, 800_000, 0]
    done = SimpleNamespace(their_state="DONE")
    transport = SimpleNamespace(get_write_buffer_size=left.pop)
    client = SimpleNamespace(conn=done, cycle=None, transport=transport)
    left.reverse()
    steps = [[wait[1][1] for wait in server_module._list_waits(client)] for _ in range(6)]
    assert steps == [[2], [2], [1], [0], [0], []]


def test_many_quick_requests_keep_their_connection(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server_module, "REQUEST_TIMEOUT_S", 0.5)

    async def answer(request) -> PlainTextResponse:
        return PlainTextResponse("done")

    with running(Starlette(routes=[Route("/", answer)])) as (host, port):
        connection = http.client.HTTPConnection(host, port, timeout=PATIENCE_S)
        connection.connect()
        kept = connection.sock
        for _ in range(20):  # together almost three times the timeout of one request
            connection.request("GET", "/")
            assert connection.getresponse().read() == b"done"
            assert connection.sock is kept
            time.sleep(0.07)
        connection.close()


def test_answer_may_take_longer_than_the_request_timeout(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server_module, "REQUEST_TIMEOUT_S", 0.2)

    async def slow(request) -> PlainTextResponse:
        await asyncio.sleep(0.5)
        return PlainTextResponse("done")

    with running(Starlette(routes=[Route("/", slow)])) as (host, port):
        connection = http.client.HTTPConnection(host, port, timeout=PATIENCE_S)
        connection.connect()
        kept = connection.sock
        for _ in range(2):
            connection.request("GET", "/")
            assert connection.getresponse().read() == b"done"
            assert connection.sock is kept
        connection.close()


def test_request_of_a_disconnected_client_never_reaches_the_model(model: ExportedModel):
    gate = Gate()
    app = build_app(fake_model(model, gate))

    def send(text: str) -> socket.socket:
        body = body_of(("", text))
        connection = socket.create_connection(address, PATIENCE_S)
        connection.sendall(
            b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (PREDICT.encode(), len(body), body)
        )
        return connection

    def metrics() -> str:
        host, port = address
        with urllib.request.urlopen(
            f"http://{host}:{port}/metrics", timeout=PATIENCE_S
        ) as response:
            return response.read().decode()

    with running(app) as address:
        first = send("first")
        assert gate.entered.wait(PATIENCE_S)
        send("gone").close()
        end = time.monotonic() + PATIENCE_S
        while f'eczema_requests_total{{code="499",route="{PREDICT}"}} 1.0' not in metrics():
            assert time.monotonic() < end
        gate.open.set()
        assert first.recv(100).startswith(b"HTTP/1.1 200")
        first.close()
    assert gate.asked == [["first"]]


# Real processes.

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(__file__).parents[1]),
    "CUDA_VISIBLE_DEVICES": "",
}
TINY_SERVER = """
import asyncio, sys
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from eczema_tf.serving.rest.server import bind, run_app

async def answer(request):
    await asyncio.sleep(float(await request.body()))
    return PlainTextResponse("answered")

listener = bind("127.0.0.1", 0)
app = Starlette(routes=[Route("/", answer, methods=["POST"])])
run_app(app, listener, lambda: print(listener.getsockname()[1], flush=True), int(sys.argv[1]))
print("stopped")
"""


@contextlib.contextmanager
def process(*command: str) -> Iterator[subprocess.Popen]:
    with subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def begin_request(port: int, body: bytes, path: str = "/") -> socket.socket:
    """Sends a request without its last byte."""
    connection = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
    connection.sendall(
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body[:-1]
    )
    return connection


def read_all(connection: socket.socket) -> bytes:
    with connection:
        return b"".join(iter(partial(connection.recv, 65536), b""))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_the_server_after_the_requests_in_progress(number: signal.Signals):
    with process("-c", TINY_SERVER, "60") as server:
        port = int(server.stdout.readline())
        connection = begin_request(port, b"0.5")
        time.sleep(0.3)
        server.send_signal(number)
        time.sleep(0.5)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 5)
        connection.sendall(b"5")
        assert read_all(connection).endswith(b"answered")
        assert server.wait(PATIENCE_S) == 0
        assert server.stdout.read() == "stopped\n"


def test_shutdown_does_not_wait_forever_for_an_answer():
    with process("-c", TINY_SERVER, "1") as server:
        connection = begin_request(int(server.stdout.readline()), b"900")
        connection.sendall(b"0")
        time.sleep(0.3)
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE_S) == 0
        connection.close()


STUCK_SERVER = """
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from eczema_tf.serving.rest import app
from eczema_tf.workflows import serve

class Stuck:
    version = 1
    metadata = SimpleNamespace(notice="no model", signatures=("serving_default",))

    def __init__(self, folder):
        self.folder = folder

    def warm_up(self):
        pass

    def run(self, *_):
        print("asked", flush=True)
        threading.Event().wait()

serve.ExportedModel, app.describe_metadata = Stuck, lambda *_: {}
serve.serve(
    Path("nowhere"), "127.0.0.1", 0, batch_rows=1, max_rows=1, max_waiting_rows=9, max_body_mb=1,
    stop_timeout_s=1, with_page=False,
)
"""


def test_queue_smaller_than_the_largest_request_is_refused_at_startup():
    limits = {"batch_rows": 1, "max_rows": 64, "max_waiting_rows": 32, "max_body_mb": 1}
    with pytest.raises(EczemaError, match="--max-waiting-rows: must be at least --max-rows, 64"):
        serve_workflow.serve(
            Path("nowhere"), "127.0.0.1", 0, **limits, stop_timeout_s=1, with_page=False
        )


@pytest.mark.parametrize("numbers", [[signal.SIGTERM], [signal.SIGINT] * 2], ids=str)
def test_shutdown_answers_503_to_waiting_clients_despite_a_stuck_batch(
    numbers: list[signal.Signals],
):
    with process("-c", STUCK_SERVER) as server:
        lines = iter(server.stdout.readline, "")
        port = next(int(found[1]) for line in lines if (found := re.search(r":(\d+)/", line)))
        body = body_of(("", SECRET))
        running, waiting, half = (begin_request(port, body, PREDICT) for _ in range(3))
        running.sendall(body[-1:])
        assert "asked\n" in lines
        waiting.sendall(body[-1:])
        for number in numbers:
            server.send_signal(number)
            with contextlib.suppress(ConnectionError):
                while True:  # until the server has begun to stop
                    socket.create_connection(("127.0.0.1", port), PATIENCE_S).close()
        for connection in (running, waiting, half):
            head, _, told = read_all(connection).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503")
            assert b"retry-after: 1" in head
            assert json.loads(told) == {"error": "the server is stopping"}
        output, errors = server.communicate(timeout=PATIENCE_S)
    assert (server.returncode, output) == (0, "stopped\n")
    assert "Traceback" not in errors
    assert SECRET not in errors


@pytest.fixture(scope="module")
def server(export: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    """The process of the command, and the address of its model."""
    with process(
        "-m", "eczema_tf.serve", "--model", str(export), "--port", "0", "--max-body-mb", "1"
    ) as started:
        lines = iter(started.stdout.readline, "")
        address = next(
            match[0]
            for line in lines
            if (match := re.search(r"http://127.0.0.1:\d+/v1/models/eczema", line))
        )
        assert next(lines) == f"{NOTICE}\n"
        yield started, address


def port_of(address: str) -> int:
    return int(re.search(r":(\d+)/", address)[1])


def test_predict_gives_the_same_answers_through_the_server(
    server, model: ExportedModel, export: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    _, address = server
    for image, text in (
        (photo(), "my skin is itchy"),
        (b"", "the rash is red"),
        (b"", "the rash is r\udce9d"),  # half a surrogate pair
        (photo("PNG"), ""),
    ):
        upright = upright_jpeg(image) if image else b""
        remote, local = predict_remotely(address, [image], text), model.run([upright], [text])
        assert remote.keys() == local.keys()
        for said in ("status", "decision"):
            assert remote.pop(said)[0] == local.pop(said)[0]
        for name, values in local.items():
            assert remote[name][0] == pytest.approx(values[0].tolist(), abs=1e-6)
    assert fetch_metadata(address) == model.metadata.said
    with pytest.raises(EczemaError, match="must be a model's address, such as"):
        predict_remotely(address.partition("/v1/")[0], [b""], "itchy")
    (tmp_path / "arm.jpg").write_bytes(photo())
    (tmp_path / "leg.jpg").write_bytes(photo(seed=1))
    answers = []
    for where in (["--url", address], ["--model", str(export)]):
        assert (
            predict.main(
                [*where, "--image", str(tmp_path / "arm.jpg"), str(tmp_path / "leg.jpg"), "--json"]
            )
            == 0
        )
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0]["thresholds"] == answers[1]["thresholds"] == THRESHOLDS
    assert answers[0]["eczema"] == pytest.approx(answers[1]["eczema"], abs=1e-6)
    body = body_of(([encoded(photo()), encoded(photo(seed=1))], ""))
    asked = urllib.request.Request(f"{address}:predict", body, JSON)
    with urllib.request.urlopen(asked, timeout=PATIENCE_S) as answer:
        (listed,) = json.load(answer)["predictions"]
    assert listed["eczema"] == pytest.approx(answers[0]["eczema"]["fusion"], abs=1e-6)
    assert listed["decision"] == answers[0]["decision"]


@pytest.mark.parametrize(
    ("head", "body", "code"),
    [
        ("Content-Length: 999999999999", b"{", 413),
        ("Content-Length: 5\r\nContent-Length: 6", b"{}", 400),
        ("Content-Length: -1", b"{}", 400),
        # longer than stated: the rest is not a request
        ("Content-Length: 2", b"{}GET /secret", 400),
        ("Transfer-Encoding: chunked", b"zz\r\n", 400),
        ("Transfer-Encoding: chunked", b"fffff\r\n" + b"x" * 0xFFFFF + b"\r\n0\r\n\r\n", 413),
        ("Content-Length: 200000", b"[" * 200_000, 400),
        (f"X: {'x' * 100_000}", b"", 400),
    ],
)
def test_malformed_and_excessive_http_is_refused(server, head: str, body: bytes, code: int):
    with socket.create_connection(("127.0.0.1", port_of(server[1])), PATIENCE_S) as connection:
        # the server may answer and close before it has read all
        with contextlib.suppress(ConnectionError):
            connection.sendall(
                f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                f"{head}\r\n\r\n".encode()
                + body
            )
        assert connection.recv(12) == f"HTTP/1.1 {code}".encode()
    assert predict_remotely(server[1], [b""], "itchy")["status"][0] == b"ok"


def test_client_explains_that_its_request_is_too_large(server):
    with pytest.raises(EczemaError, match=r"hung up on a request of 20\.0 MB.*-max-body-mb, 20"):
        predict_remotely(server[1], [bytes(15_000_000)], "itchy")
    assert Limits().max_body_bytes == MAX_BODY_MB * 1_000_000


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("localhost", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:8501", 200),
        ("rebound.example", 400),
        ("localhost.rebound.example:8501", 400),
    ],
)
def test_host_header_must_name_this_machine(server, host: str, code: int):
    request = f"GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", port_of(server[1])), PATIENCE_S)
    connection.sendall(request.encode())
    assert read_all(connection).startswith(f"HTTP/1.1 {code}".encode())


def test_port_in_use_is_a_one_line_error(server, export: Path, capsys: pytest.CaptureFixture):
    assert main(["--model", str(export), "--port", str(port_of(server[1]))]) == 1
    assert re.fullmatch(
        r"error: 127.0.0.1:\d+: cannot be listened on: .*; choose another --host or --port\n",
        capsys.readouterr().err,
    )


@pytest.mark.parametrize(
    "arguments",
    [["--port", "x"], ["--port", "70000"], ["--batch-rows", "0"], ["--max-body-mb", "-1"]],
)
def test_bad_usage_is_refused(arguments: list[str], capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as caught:
        main(["--model", "nowhere", *arguments])
    assert caught.value.code == 2
    assert "must be a whole number from" in capsys.readouterr().err


def test_address_open_to_other_machines_gives_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    assert main(["--model", str(tmp_path), "--host", "0.0.0.0", "--port", "0"]) == 1
    error = capsys.readouterr().err
    assert "warning: 0.0.0.0 can be reached from other machines" in error
    assert "no login" in error
    assert "contains no SavedModel" in error


# This must be the last test of the file, because it stops the module's server.
def test_command_answers_the_last_request_and_exits_with_0(server):
    started, address = server
    body = body_of(("", SECRET))
    connection = begin_request(port_of(address), body, PREDICT)
    time.sleep(0.3)
    started.send_signal(signal.SIGTERM)
    connection.sendall(body[-1:])
    answered = json.loads(read_all(connection).partition(b"\r\n\r\n")[2])
    assert answered["predictions"][0]["text_used"]
    output, errors = started.communicate(timeout=PATIENCE_S)
    assert started.returncode == 0
    assert output == "stopped\n"
    assert SECRET not in output + errors
