"""Tests of the served graph (parity with Keras, separate rows, hostile bytes) and its client."""

import http.server
import io
import json
import shutil
import threading
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from eczema_tf.config import ImageConfig, ModelConfig, PreprocessConfig, TextConfig
from eczema_tf.data.checksums import write_checksums
from eczema_tf.data.clinical.fields import Field
from eczema_tf.data.photo.limits import SERVED_MAX_BYTES
from eczema_tf.data.photo.preprocess import preprocess_photo
from eczema_tf.data.text.reading import choose_unknown_limit
from eczema_tf.data.text.tokenizer import clean_text, learn_tokenizer
from eczema_tf.errors import EczemaError
from eczema_tf.evaluation.grades import compute_grade_probabilities, name_grades
from eczema_tf.explanation.one_pass import explain_in_one_pass
from eczema_tf.explanation.submodels import Submodels
from eczema_tf.model.encoders import specify_image_encoder, specify_text_encoder
from eczema_tf.model.graphs import list_functions
from eczema_tf.model.losses import compute_probabilities
from eczema_tf.model.multimodal import Encoders, build_model
from eczema_tf.reporting.answer import format_answer, read_answer
from eczema_tf.schema import (
    CONSISTENCY,
    IMAGE,
    IMAGE_PRESENT,
    MOSTLY_UNKNOWN,
    NOTICE,
    PADDING_MASK,
    SEVERITY,
    TEXT_PRESENT,
    TOKEN_IDS,
)
from eczema_tf.serving import client
from eczema_tf.serving.cases import plain_row
from eczema_tf.serving.client import fetch_metadata, predict_remotely
from eczema_tf.serving.exported import (
    FILES,
    GRAPH_FILE,
    METADATA_FILE,
    STEP_BYTES,
    STEP_ROWS,
    ExportedModel,
    ExportMetadata,
    find_version,
    plan_steps,
)
from eczema_tf.serving.graph import freeze
from eczema_tf.serving.graph.served_model import (
    IGNORED_PHOTO,
    IGNORED_TEXT,
    ServedModel,
    save_served,
)
from eczema_tf.serving.graph.signature import SERVE, SIGNATURES
from eczema_tf.serving.graph.subset import keep_signatures
from eczema_tf.serving.graph.warmup import write_warmup
from eczema_tf.workflows import predict as predicting
from eczema_tf.workflows.predict import predict

SIZE_PX = 32
METADATA = ExportMetadata(
    notice=NOTICE,
    eczema_tf="0.2.0",
    thresholds={"image": 0.4, "text": 0.5, "fusion": 0.6},
    undecided={"image": (0.3, 0.5), "text": (0.4, 0.6), "fusion": (0.5, 0.7)},
    labels={"consistency": CONSISTENCY, "severity": SEVERITY},
    uses=("image", "text"),
    environment={"python": "3.11.7"},
)


def photo(kind: str = "JPEG", size: tuple[int, int] = (60, 44), seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3)).astype("uint8")
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def build_parts(embedding_dimension: int | None = None, clinical: tuple[Field, ...] = ()):
    keras.utils.set_random_seed(0)
    texts = ["my skin is itchy and dry", "the rash is red"] * 5
    tokenizer = learn_tokenizer(texts, 100, 16)
    tokenizer.unknown_limit = choose_unknown_limit(tokenizer, texts)  # as in training
    image = specify_image_encoder(ImageConfig(preset=None, size_px=SIZE_PX), embedding_dimension)
    encoders = Encoders(
        image,
        specify_text_encoder(TextConfig(preset=None), len(tokenizer.vocabulary)),
        clinical=clinical,
    )
    model = build_model(ModelConfig(embedding_units=8), encoders)
    # untrained heads answer about 0.5 for everything: larger kernels make differences visible
    for head in ("eczema_image", "eczema_text"):
        model.get_layer(head).kernel.assign(model.get_layer(head).kernel * 20)
    rng = np.random.default_rng(0)
    for start_at_zero in ("eczema_joint", "severity_joint", "severity_image_score", "consistency"):
        kernel = model.get_layer(start_at_zero).kernel
        kernel.assign(rng.normal(size=kernel.shape))
    return model, image, tokenizer


def build_served(parts, **more) -> ServedModel:
    model, image, tokenizer = parts
    return ServedModel(
        model=model, image_encoder=image, tokenizer=tokenizer, preprocess=PreprocessConfig(), **more
    )


def build_explained(parts, **more) -> ServedModel:
    """Builds a served model with both signatures."""
    explainer = partial(explain_in_one_pass, Submodels(parts[0]))
    return build_served(parts, explainer=explainer, **more)


def save_small_export(folder: Path) -> None:
    """Saves a small export with variables and warm-up requests, as large models have."""
    parts = model, _, _ = build_parts()
    # steep enough to tell photos apart, but not so steep that all answers are 0 or 1
    for head in ("eczema_joint", "eczema_image", "eczema_text"):
        model.get_layer(head).kernel.assign(model.get_layer(head).kernel / 10)
    served = build_explained(parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(freeze, "LARGE_BYTES", 1000)
        save_served(served, folder)
    write_warmup(folder, served.signatures())
    METADATA.write(folder)


@pytest.fixture(scope="module")
def parts():
    return build_parts()


@pytest.fixture(scope="module")
def export(parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "3"
    save_served(build_served(parts), folder)
    METADATA.write(folder)
    return folder


@pytest.fixture(scope="module")
def serve(export: Path):
    loaded = tf.saved_model.load(str(export))  # the closure keeps the model alive

    def ask(photos: list[bytes], texts: list[bytes | str]) -> dict[str, np.ndarray]:
        outputs = loaded.signatures["serving_default"](
            image=tf.constant(photos), text=tf.constant(texts)
        )
        return {name: value.numpy() for name, value in outputs.items()}

    return ask


def test_signature_has_the_documented_inputs_and_outputs(export: Path):
    signature = tf.saved_model.load(str(export)).signatures["serving_default"]
    inputs = {
        name: (spec.dtype, spec.shape.as_list())
        for name, spec in signature.structured_input_signature[1].items()
    }
    assert inputs == {"image": (tf.string, [None]), "text": (tf.string, [None])}
    outputs = {
        name: (spec.dtype, spec.shape.rank) for name, spec in signature.structured_outputs.items()
    }
    vectors = dict.fromkeys(("eczema", "eczema_image", "eczema_text"), (tf.float32, 1))
    triples = dict.fromkeys(("consistency", "severity"), (tf.float32, 2))
    assert outputs == {
        **vectors,
        **triples,
        "image_used": (tf.bool, 1),
        "text_used": (tf.bool, 1),
        "known_image": (tf.bool, 1),
        "known_text": (tf.bool, 1),
        "status": (tf.string, 1),
        "decision": (tf.string, 1),
    }


def test_export_agrees_with_keras_on_inputs_of_the_training_pipeline(parts, serve):
    model, _, tokenizer = parts
    photos, texts = [photo(), b"", photo("PNG", seed=1)], ["itchy & dry", "the <b>rash</b>", ""]
    pixels = [
        (preprocess_photo(tf.constant(data), SIZE_PX, PreprocessConfig()) if data else None)
        for data in photos
    ]
    ids, mask = (
        tf.data.Dataset.from_tensors(tf.constant(texts))
        .map(clean_text)
        .map(tokenizer)
        .get_single_element()
    )
    logits = model.predict_on_batch(
        {
            IMAGE: (
                np.stack(
                    [np.zeros((SIZE_PX, SIZE_PX, 3)) if p is None else p.numpy() for p in pixels]
                ).astype("float32")
            ),
            IMAGE_PRESENT: np.array([1, 0, 1], "float32"),
            TOKEN_IDS: ids.numpy(),
            PADDING_MASK: mask.numpy(),
            TEXT_PRESENT: np.array([1, 1, 0], "float32"),
        }
    )
    answer = serve(photos, texts)
    for head, expected in compute_probabilities(logits).items():
        np.testing.assert_allclose(answer[head], expected, atol=1e-5)
    assert answer["image_used"].tolist() == [True, False, True]
    assert answer["text_used"].tolist() == [True, True, False]
    assert answer["status"].tolist() == [b"ok"] * 3
    assert np.ptp(answer["eczema"]) > 1e-3


def png_header(width: int, height: int) -> bytes:
    return (
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
        + width.to_bytes(4, "big")
        + height.to_bytes(4, "big")
        + b"\x08\x02\x00\x00\x00"
        + bytes(40)
    )


HOSTILE = {
    "short": (b"\xff\xd8\xff", b"photo: smaller than 32 bytes"),
    "huge": (b"\xff\xd8\xff" + bytes(SERVED_MAX_BYTES), b"photo: larger than 10 MB"),
    "gif": (b"GIF89a" + bytes(100), b"photo: neither JPEG nor PNG"),
    "html": (b"<html>" + b"x" * 100, b"photo: neither JPEG nor PNG"),
    "bomb": (png_header(12000, 12000), b"photo: more than 25 megapixels"),
    "overflow": (png_header(2**31, 2**31 + 1), b"photo: more than 25 megapixels"),
    "cut jpeg": (photo()[:700], b"photo: cannot be decoded"),
    "cut png": (photo("PNG")[:700], b"photo: cannot be decoded"),
    "empty jpeg": (b"\xff\xd8\xff" + bytes(60), b"photo: cannot be decoded"),
    "broken png": (png_header(40, 40), b"photo: cannot be decoded"),
}


def test_bad_photos_get_a_status_and_do_not_affect_other_rows(serve):
    good, text = photo(), b"itchy"
    alone = serve([good], [text])
    photos = [good]
    for data, _ in HOSTILE.values():
        photos += [data, good]
    answer = serve(photos, [text] * len(photos))
    for place, (name, (_, status)) in enumerate(HOSTILE.items()):
        assert answer["status"][2 * place + 1] == status, name
        assert not answer["image_used"][2 * place + 1], name
        assert answer["text_used"][2 * place + 1], name
    assert (answer["status"][::2] == b"ok").all()
    np.testing.assert_allclose(answer["eczema"][::2], alone["eczema"][0], atol=1e-6)


def test_status_reports_cut_and_mostly_unknown_texts_which_are_still_used(serve):
    long, strange = "is " * 20, "zzz qqq zzz"
    answer = serve([b"", HOSTILE["gif"][0], photo(), photo()], [long, long, strange, "itchy"])
    read = "text: read to word 14 of 20"
    expected = [read, f"photo: neither JPEG nor PNG; {read}", MOSTLY_UNKNOWN, "ok"]
    assert [status.decode() for status in answer["status"]] == expected
    assert answer["text_used"].all()
    cut = serve([b""], ["is " * 14])
    np.testing.assert_allclose(answer["eczema"][0], cut["eczema"][0], atol=1e-6)


@pytest.mark.parametrize("signature", SIGNATURES)
def test_answers_do_not_depend_on_how_many_rows_run_at_once(
    small_export: Path, monkeypatch: pytest.MonkeyPatch, signature: str
):
    texts = ["itchy " * 200, "red", "", "dry " * 300]
    exported = ExportedModel(small_export, [signature])
    at_once = exported.run([photo()] * 4, texts, signature)
    monkeypatch.setitem(STEP_ROWS, signature, 1)
    by_and_by = exported.run([photo()] * 4, texts, signature)
    assert by_and_by.keys() == at_once.keys()
    for row, text in enumerate(texts):  # answers are in the order of the rows
        alone = exported.run([photo()], [text], signature)["eczema"][0]
        assert at_once["eczema"][row] == pytest.approx(alone, abs=1e-5)
    for name, value in at_once.items():
        if value.dtype == np.float32:
            np.testing.assert_allclose(by_and_by[name], value, atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(by_and_by[name], value, err_msg=name)


@pytest.mark.parametrize("signature", SIGNATURES)
def test_signature_loaded_without_the_others_gives_the_same_answers(
    small_export: Path, signature: str
):
    cases = [photo(), b""], ["itchy and dry", "red"], signature
    alone, whole = ExportedModel(small_export, [signature]), ExportedModel(small_export)
    for name, value in whole.run(*cases).items():
        np.testing.assert_array_equal(alone.run(*cases)[name], value, err_msg=name)


def test_keep_signatures_drops_the_functions_of_other_signatures(small_export: Path):
    graph = (small_export / "saved_model.pb").read_bytes()
    kept = {}
    for names in [("serving_default",), ("explain",), SIGNATURES]:
        (meta,) = keep_signatures(SavedModel.FromString(graph), names).meta_graphs
        kept[names] = {function.signature.name for function in list_functions(meta.graph_def)}
        assert len(meta.object_graph_def.concrete_functions) == len(names)
    serving, explaining, both = kept.values()
    assert both == serving | explaining
    assert not serving & explaining
    assert 3 * len(serving) < 2 * len(both)


def test_damaged_graph_without_checksums_is_a_clear_error(small_export: Path, tmp_path: Path):
    folder = tmp_path / "1"
    shutil.copytree(small_export, folder, ignore=shutil.ignore_patterns("SHA256SUMS"))
    for damaged in (b"", b"\x0a\xff"):
        (folder / "saved_model.pb").write_bytes(damaged)
        with pytest.raises(EczemaError, match="cannot be loaded as a SavedModel"):
            ExportedModel(folder)


def test_plan_steps_keeps_long_texts_apart_from_short_ones():
    short, long = [80] * 15, STEP_BYTES - 1
    assert list(plan_steps([*short[:7], long, *short[7:]], 16)) == [[*range(7), *range(8, 16)], [7]]
    assert list(plan_steps([STEP_BYTES // 16] * 16, 16)) == [[*range(16)]]
    assert list(plan_steps([long, STEP_BYTES * 99, 0, long], 16)) == [[2], [0], [3], [1]]
    assert list(plan_steps([0, 1, 2, 3, 4], 2)) == [[0, 1], [2, 3], [4]]
    assert list(plan_steps([], 16)) == [[]]


def test_undecodable_photo_is_treated_like_no_photo(serve):
    bad, none = serve([HOSTILE["cut jpeg"][0]], [b"itchy"]), serve([b""], [b"itchy"])
    np.testing.assert_allclose(bad["eczema"], none["eczema"], atol=1e-6)


@given(st.lists(st.tuples(st.binary(max_size=200), st.binary(max_size=60)), min_size=1, max_size=4))
@settings(max_examples=40)
def test_arbitrary_bytes_get_a_finite_answer_for_each_row(serve, rows: list[tuple[bytes, bytes]]):
    magics = [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b""]
    answer = serve(
        [magics[place % 3] + data for place, (data, _) in enumerate(rows)],
        [text for _, text in rows],
    )
    assert len(answer["eczema"]) == len(rows)
    assert np.isfinite(answer["eczema"]).all()
    assert not answer["image_used"].any()


def test_status_says_when_neither_photo_nor_text_is_usable(serve):
    assert serve([b""], [b""])["status"][0] == b"neither a photo nor a text that can be used"
    both = serve([b"\xff\xd8\xff"], [b"\x00\x00"])["status"][0]
    assert both == b"photo: smaller than 32 bytes; text: nothing readable in it"


def test_model_of_image_embeddings_ignores_photos_and_says_so():
    served = build_served(build_parts(embedding_dimension=12))
    answer = served.serve(tf.constant([photo(), b""]), tf.constant(["itchy", "dry"]))
    assert answer["status"].numpy().tolist() == [IGNORED_PHOTO.encode(), b"ok"]
    assert not answer["image_used"].numpy().any()


def test_text_is_ignored_if_the_model_was_not_trained_on_texts(parts):
    served = build_served(parts, trained_on=frozenset({"image"}))
    answer = served.serve(tf.constant([photo()]), tf.constant(["itchy"]))
    assert answer["status"].numpy()[0] == IGNORED_TEXT.encode()
    assert answer["image_used"].numpy()[0]
    assert not answer["text_used"].numpy()[0]


def test_export_with_an_operation_that_writes_files_is_refused(small_export: Path, tmp_path: Path):
    folder = Path(shutil.copytree(small_export, tmp_path / "1"))
    saved = SavedModel.FromString((folder / GRAPH_FILE).read_bytes())
    list_functions(saved.meta_graphs[0].graph_def)[0].node_def.add(op="WriteFile")
    (folder / GRAPH_FILE).write_bytes(saved.SerializeToString())
    write_checksums(folder, FILES)
    for signatures in (None, ["serving_default"]):
        with pytest.raises(EczemaError, match=r"more than compute.*: WriteFile"):
            ExportedModel(folder, signatures)


def test_predict_does_not_mix_versions_if_a_newer_one_appears_meanwhile(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "1").symlink_to(export)

    def export_meanwhile(*_: object) -> str:
        (tmp_path / "2").mkdir()
        (tmp_path / "2" / "saved_model.pb").write_text("another graph")
        return ""

    monkeypatch.setattr(predicting, "join_fields", export_meanwhile)
    assert predicting.predict([], "itchy", model=tmp_path).thresholds == METADATA.thresholds


def test_local_prediction_uses_the_newest_complete_version(export: Path, tmp_path: Path):
    (tmp_path / "arm.jpg").write_bytes(photo())
    for name in ("2", "4", "\u00b2"):  # no graph yet: 4 is still being copied
        (export.parent / name).mkdir()
    assert find_version(export.parent) == export
    answer = predict([tmp_path / "arm.jpg"], "itchy", model=export.parent)
    assert answer.status == "ok"
    assert answer.image_used is True
    assert answer.severity is not None
    assert answer.thresholds == METADATA.thresholds
    assert not tf.config.optimizer.get_experimental_options()["disable_meta_optimizer"]


def test_exported_model_knows_its_version_and_metadata(export: Path):
    exported = ExportedModel(export.parent, [SERVE])
    assert (exported.folder, exported.version) == (export, 3)
    assert exported.metadata == ExportMetadata.read(export.parent) == METADATA
    written = json.loads((export / "assets.extra" / "eczema.json").read_text())
    assert list(written) == [name for name in ExportMetadata.model_fields if name != "clinical"]
    assert written["labels"] == {"consistency": [*CONSISTENCY], "severity": [*SEVERITY]}


def test_missing_signature_is_a_clear_error(export: Path):
    with pytest.raises(EczemaError, match="cannot be loaded as a SavedModel: 'explain'"):
        ExportedModel(export)


@pytest.mark.parametrize("content", ["", "[1]", '{"notice": "x"}'])
def test_missing_or_damaged_metadata_are_a_clear_error(tmp_path: Path, content: str):
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(EczemaError, match=r"eczema\.json: missing or damaged; export the model"):
        ExportMetadata.read(tmp_path)
    (tmp_path / METADATA_FILE).parent.mkdir()
    (tmp_path / METADATA_FILE).write_text(content)
    with pytest.raises(EczemaError, match=r"eczema\.json: missing or damaged; export the model"):
        ExportMetadata.read(tmp_path)


def test_folder_without_a_model_is_a_clear_error(tmp_path: Path):
    with pytest.raises(EczemaError, match="contains no SavedModel"):
        predict([], "itchy", model=tmp_path)


ROW = {
    "eczema": 0.75,
    "eczema_image": 0.5,
    "eczema_text": 0.9,
    "consistency": [0.7, 0.2, 0.1],
    "severity": [0.1, 0.6, 0.3],
    "image_used": True,
    "text_used": True,
    "known_image": True,
    "known_text": True,
    "decision": "eczema",
    "status": "ok",
}


@pytest.fixture
def server():
    """A server with just enough of TensorFlow Serving's REST protocol; it records the requests."""

    asked: list[tuple[str, object]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, body))
            good = self.path == "/v1/models/eczema:predict"
            rows = [ROW] * len(body["instances"])
            answer = json.dumps(
                {"predictions": rows} if good else {"error": "no such model"}
            ).encode()
            self.send_response(200 if good else 404)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/v1/models", asked
        running.shutdown()
        thread.join()


def test_remote_prediction_uses_the_protocol_of_tensorflow_serving(server, tmp_path: Path):
    (tmp_path / "arm.jpg").write_bytes(photo())
    url, asked = server
    rows = predict_remotely(f"{url}/eczema", [b"abc", b""], "itchy")
    assert [plain_row(rows, row) for row in range(2)] == [ROW, ROW]
    instances = [{"image": {"b64": image}, "text": "itchy"} for image in ("YWJj", "")]
    assert asked == [("/v1/models/eczema:predict", {"instances": instances})]
    answer = predict([tmp_path / "arm.jpg"] * 2, "itchy", url=f"{url}/eczema")
    assert answer.eczema["fusion"] == pytest.approx(ROW["eczema"])
    assert (answer.decision, answer.photos, answer.thresholds) == ("eczema", 2, None)


def test_error_message_of_a_server_is_passed_on(server):
    with pytest.raises(EczemaError, match=r"answered 404.*no such model"):
        predict_remotely(f"{server[0]}/other", [b""], "itchy")


NONSENSE = {
    "a name is missing": ({"severity": ...}, "it has no 'severity'"),
    "a string": ({"eczema": "x"}, "eczema: must be numbers from 0 to 1"),
    "true": ({"eczema": True}, "eczema: must be numbers from 0 to 1"),
    "above 1": ({"eczema": 7}, r"eczema: .* received \[7\]"),
    "below 0": ({"severity": [-0.5, 1, 0.5]}, "severity: must be numbers from 0 to 1"),
    "not a number": ({"eczema_text": float("nan")}, "eczema_text: .*nan"),
    "null": ({"eczema_image": None}, "eczema_image: .*None"),
    "nested": ({"eczema": [[0.5]]}, r"eczema: .*of shape \(1,\)"),
    "too few": ({"consistency": [0.3]}, r"consistency: .*of shape \(1, 3\)"),
    "unequal": ({"severity": [[0.3], [0.3, 0.4]]}, "no usable answer"),
    "no flag": ({"image_used": 1}, "image_used: must be true or false"),
    "no decision": ({"decision": "perhaps"}, "decision: must be .* or eczema; .*'perhaps'"),
    "a decision of several": ({"decision": ["eczema"]}, "decision: must be"),
    "no status": ({"status": None}, "status: must be a string"),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_malformed_rows_from_a_server_are_refused(name: str, monkeypatch: pytest.MonkeyPatch):
    changes, message = NONSENSE[name]
    row = {key: value for key, value in {**ROW, **changes}.items() if value is not ...}
    monkeypatch.setattr(client, "_fetch", lambda *_: {"predictions": [row]})
    with pytest.raises(EczemaError, match=message) as caught:
        predict_remotely("http://x/v1/models/eczema", [b""], "itchy")
    assert "x/v1/models/eczema: no usable answer: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_control_characters_from_a_server_are_replaced(monkeypatch: pytest.MonkeyPatch):
    row = {**ROW, "status": "ok\x1b[2J\ud800"}
    said = {**METADATA.model_dump(mode="json"), "notice": "no diagnosis\x1b]0;x\a"}
    answer = {"predictions": [row], "metadata": {"eczema_tf": said}}
    monkeypatch.setattr(client, "_fetch", lambda *_: answer)
    status = predict_remotely("http://x/v1/models/eczema", [b""], "itchy")["status"][0]
    assert status.decode() == "ok\ufffd[2J\ufffd"
    notice = fetch_metadata("http://x/v1/models/eczema").notice
    assert notice == "no diagnosis\ufffd]0;x\ufffd"


@pytest.mark.parametrize("answer", [None, [], {}, {"predictions": None}, {"predictions": [3]}])
def test_unexpected_json_from_a_server_is_refused(answer: object, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(client, "_fetch", lambda *_: answer)
    for ask in (fetch_metadata, partial(predict_remotely, images=[b""], text="itchy")):
        with pytest.raises(EczemaError, match="no usable answer"):
            ask("http://x/v1/models/eczema")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"thresholds": ...}, "it has no 'thresholds'"),
        ({"thresholds": {"image": 0.5, "fusion": 0.5}}, "it has no 'text'"),
        (
            {"thresholds": {"image": 0.5, "text": "x", "fusion": 0.5}},
            "threshold: must be numbers from 0 to 1.*'x'",
        ),
        ({"undecided": {"image": [0.4, 0.5]}}, "it has no 'text'"),
        ({"undecided": {**METADATA.undecided, "text": [1, 2]}}, "from 0 to 1"),
        ({"undecided": {**METADATA.undecided, "text": [0.5]}}, "no usable answer"),
        ({"clinical": ["age"]}, "no usable answer"),
        ({"clinical": {"age": 3}}, "no usable answer"),
    ],
    ids=str,
)
def test_malformed_metadata_from_a_server_are_refused(
    changes: dict, message: str, monkeypatch: pytest.MonkeyPatch
):
    said = {**METADATA.model_dump(mode="json"), "clinical": {"age": [], "sex": ["f", "m"]}}
    monkeypatch.setattr(client, "_fetch", lambda *_: {"metadata": {"eczema_tf": said}})
    told = METADATA.said._replace(clinical={"age": (), "sex": ("f", "m")})
    assert fetch_metadata("http://x/v1/models/eczema") == told
    said |= changes
    for name in [name for name, value in said.items() if value is ...]:
        del said[name]
    with pytest.raises(EczemaError, match=message):
        fetch_metadata("http://x/v1/models/eczema")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://127.0.0.1:9/v1/models/eczema", "Connection refused"),
        ("file:///etc/passwd", "http"),
        ("nonsense", "http"),
    ],
)
def test_unreachable_or_invalid_url_is_a_clear_error(url: str, says: str):
    with pytest.raises(EczemaError, match=says):
        predict_remotely(url, [b""], "itchy")


def test_formatted_answer_is_readable_and_has_the_notice():
    thresholds = {"image": 0.6, "text": 0.4, "fusion": 0.5}
    text = format_answer(read_answer(ROW, thresholds))
    assert text.startswith("Eczema: at most one in ten validation cases without eczema ")
    assert "from the photo  0.50  (below the validation threshold 0.60)" in text
    assert "from both       0.75  (above" in text
    assert "severity of the eczema    moderate  (moderate 0.60" in text
    assert "eczema 0.70, other 0.20, unclear 0.10" in text
    assert NOTICE in text


def test_consistency_is_left_out_if_the_model_never_learned_it():
    answer = read_answer({**ROW, "consistency": [float(np.float32(1 / 3))] * 3}, None)
    assert answer.consistency is None
    assert "the text suggests" not in format_answer(answer)


def test_answer_leaves_out_modalities_that_were_not_used():
    answer = read_answer({**ROW, "image_used": False, "status": "photo: cannot be decoded"}, None)
    assert answer.eczema == {"image": None, "text": 0.9, "fusion": 0.75}
    text = format_answer(answer)
    assert "from the photo  not given" in text
    assert "overall" in text
    assert "note: photo: cannot be decoded" in text
    assert answer.find_threshold("fusion") is None
    unsure = {**ROW, "image_used": False, "decision": "cannot tell"}
    lone = read_answer(unsure, {"image": 0.6, "text": 0.95, "fusion": 0.5})
    assert lone.compare_with_threshold("fusion") == "below"  # the text's own threshold
    assert "severity, if eczema" in format_answer(lone)
    nothing = read_answer({**ROW, "image_used": False, "text_used": False}, None)
    assert nothing.eczema["fusion"] is None
    assert nothing.severity is None
    assert nothing.consistency is None
    assert nothing.grade == ""


def test_displayed_grade_is_the_one_that_evaluation_scores():
    """Both are the median; here, the most probable grade is a different one."""
    severity = [0.4, 0.25, 0.35]
    logits = np.log([0.6 / 0.4, 0.35 / 0.65])
    np.testing.assert_allclose(compute_grade_probabilities(logits[None]), [severity])
    answer = read_answer({**ROW, "severity": severity}, None)
    assert answer.grade == name_grades(np.array([severity]), np.array([False]))[0] == "moderate"
    assert answer.to_json()["grade"] == "moderate"
    unclear = {**ROW, "consistency": [0.1, 0.2, 0.7]}
    assert read_answer(unclear, None).grade == "moderate"
    untold = read_answer({**unclear, "image_used": False}, None)
    assert untold.to_json()["grade"] is None
    assert "severity of the eczema    not known" in format_answer(untold)
    assert not read_answer({**ROW, "severity": [1 / 3] * 3}, None).grade
