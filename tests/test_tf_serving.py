"""Tests of the export in TensorFlow Serving's C++ loader, of warm-up requests and configuration."""

import base64
import io
import json
import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2
from test_serving import SIZE_PX, photo

from eczema_tf.serving.graph.signature import MODEL_NAME, SIGNATURES
from eczema_tf.serving.graph.warmup import BATCH_SIZES, WARMUP_FILE, draw_rows

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "scripts" / "tf_serving"
PHOTOS = [
    photo(),
    b"",
    photo("PNG", seed=1),
    b"\xff\xd8\xff" + bytes(100),
    b"GIF89a" + bytes(100),
    photo(size=(900, 700), seed=2),
]
TEXTS = [
    "my skin is itchy & dry",
    "the <b>rash</b>",
    "",
    "red",
    "\u00e9cz\u00e9ma \U0001f600 " * 30,
    "dry",
]


@pytest.fixture(scope="module")
def export(small_export: Path) -> Path:
    return small_export


@pytest.fixture(scope="module")
def in_python(export: Path):
    loaded = tf.saved_model.load(str(export))  # the closure keeps the model alive

    def ask(signature: str, photos: list[bytes], texts: list[str]) -> dict[str, np.ndarray]:
        answer = loaded.signatures[signature](
            image=tf.constant(photos, tf.string), text=tf.constant(texts, tf.string)
        )
        return {name: value.numpy() for name, value in answer.items()}

    return ask


def read_warmup(folder: Path) -> list[predict_pb2.PredictRequest]:
    records = tf.data.TFRecordDataset(str(folder / WARMUP_FILE)).as_numpy_iterator()
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    return [log.predict_log.request for log in logs]


def describe_run(export: Path, signature: str, photos: list[bytes], texts: list[str]) -> dict:
    """Returns one run as `c_api.py` takes it: rows and outputs by name of their tensor."""
    graph = saved_model_pb2.SavedModel.FromString(
        (export / "saved_model.pb").read_bytes()
    ).meta_graphs[0]
    tensors = graph.signature_def[signature]
    rows = {"image": photos, "text": [text.encode() for text in texts]}
    inputs = {
        tensors.inputs[name].name: {"b64": [base64.b64encode(row).decode() for row in column]}
        for name, column in rows.items()
    }
    return {
        "inputs": inputs,
        "outputs": {name: tensor.name for name, tensor in tensors.outputs.items()},
    }


def ask_c_api(export: Path, runs: list[dict], *, text_ops: bool = True) -> dict:
    question = json.dumps({"folder": str(export), "text_ops": text_ops, "runs": runs})
    command = [sys.executable, str(ROOT / "tests" / "c_api.py")]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        command,
        input=question,
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def to_array(tensor: dict) -> np.ndarray:
    values = (
        [base64.b64decode(row) for row in tensor["b64"]]
        if tensor["dtype"] == "string"
        else tensor["values"]
    )
    return np.array(values, object if tensor["dtype"] == "string" else tensor["dtype"]).reshape(
        tensor["shape"]
    )


@pytest.fixture(scope="module")
def through_c(export: Path) -> list[dict[str, np.ndarray]]:
    """Answers of the C API, not Python: both signatures on `PHOTOS`, then each warm-up request."""
    runs = [describe_run(export, signature, PHOTOS, TEXTS) for signature in SIGNATURES]
    for request in read_warmup(export):
        photos, texts = (
            tf.make_ndarray(request.inputs[name]).tolist() for name in ("image", "text")
        )
        runs.append(
            describe_run(
                export, request.model_spec.signature_name, photos, [text.decode() for text in texts]
            )
        )
    return [
        {name: to_array(tensor) for name, tensor in run.items()}
        for run in ask_c_api(export, runs)["runs"]
    ]


@pytest.mark.parametrize("place", range(len(SIGNATURES)), ids=SIGNATURES)
def test_c_api_agrees_with_python(in_python, through_c, place: int):
    expected, answer = in_python(SIGNATURES[place], PHOTOS, TEXTS), through_c[place]
    assert set(answer) == set(expected)
    for name, value in expected.items():
        assert answer[name].shape == value.shape, name
        if value.dtype == np.float32:
            np.testing.assert_allclose(answer[name], value, atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(answer[name], value, err_msg=name)
    assert answer["image_used"].tolist() == [True, False, True, False, False, True]
    bad, cut = answer["status"].tolist()[3:5]
    assert bad == b"photo: cannot be decoded"
    assert cut.startswith(b"photo: neither JPEG nor PNG; text: read to word ")
    assert np.ptp(answer["eczema"]) > 1e-3


def test_explain_repeats_the_prediction_and_adds_the_explanation(through_c):
    plain, explained = through_c[:2]
    for name, value in plain.items():
        if value.dtype == np.float32:
            np.testing.assert_allclose(explained[name], value, atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(explained[name], value, err_msg=name)
    tokens = {"token_start", "token_end", "token_score", "clean_text"}
    assert set(explained) - set(plain) == {"heatmap", "heatmap_scale", "contribution", *tokens}


def test_c_api_reports_an_unregistered_op_without_tensorflow_text(export: Path):
    answer = ask_c_api(export, [], text_ops=False)
    assert "Op type not registered" in answer["error"]


def test_warmup_covers_every_signature_and_batch_size(export: Path):
    requests = list(read_warmup(export))
    seen = [
        (
            request.model_spec.name,
            request.model_spec.signature_name,
            len(tf.make_ndarray(request.inputs["image"])),
        )
        for request in requests
    ]
    assert seen == [
        (MODEL_NAME, signature, rows) for signature in SIGNATURES for rows in BATCH_SIZES
    ]
    for request in requests:
        assert {
            name: (tensor.dtype, len(tensor.tensor_shape.dim))
            for name, tensor in request.inputs.items()
        } == {"image": (tf.string.as_datatype_enum, 1), "text": (tf.string.as_datatype_enum, 1)}


def test_warmup_requests_are_answered_without_photo_errors(through_c, export: Path):
    answers = through_c[len(SIGNATURES) :]
    assert len(answers) == len(SIGNATURES) * len(BATCH_SIZES)
    for answer in answers:
        # a status may say that most words are new: this model knows only a few
        assert not any(b"photo" in status for status in answer["status"])
        rows = range(len(answer["status"]))
        assert answer["image_used"].tolist() == [row % 3 != 2 for row in rows]
        assert answer["text_used"].tolist() == [row % 3 != 1 for row in rows]


def test_warmup_photo_has_no_exif_and_is_large_enough_to_be_reduced():
    (image,), _ = draw_rows(1)
    assert b"Exif" not in image
    with Image.open(io.BytesIO(image)) as opened:
        assert min(opened.size) >= 4 * SIZE_PX


def test_warmup_file_is_where_tensorflow_serving_looks_for_it(export: Path):
    assert WARMUP_FILE.as_posix() == "assets.extra/tf_serving_warmup_requests"
    assert (export / WARMUP_FILE).stat().st_size > 0


def build_messages() -> descriptor_pool.DescriptorPool:
    """Builds BatchingParameters and MonitoringConfig, which the server's Python package lacks.

    Their fields are as in tensorflow_serving/servables/tensorflow/session_bundle_config.proto and
    config/monitoring_config.proto.
    """
    file = descriptor_pb2.FileDescriptorProto(
        name="serving.proto", package="tensorflow.serving", syntax="proto3"
    )
    file.dependency.append("google/protobuf/wrappers.proto")
    kinds = descriptor_pb2.FieldDescriptorProto

    def add_message(name: str, fields: list[tuple[str, int, int, str | None]]) -> None:
        message = file.message_type.add(name=name)
        for field, number, kind, type_name in fields:
            message.field.add(
                name=field,
                number=number,
                type=kind,
                type_name=type_name,
                label=kinds.LABEL_OPTIONAL,
            )

    long = (kinds.TYPE_MESSAGE, ".google.protobuf.Int64Value")
    names = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")
    add_message(
        "BatchingParameters", [(name, number, *long) for number, name in enumerate(names, 1)]
    )
    add_message(
        "PrometheusConfig",
        [("enable", 1, kinds.TYPE_BOOL, None), ("path", 2, kinds.TYPE_STRING, None)],
    )
    add_message(
        "MonitoringConfig",
        [("prometheus_config", 1, kinds.TYPE_MESSAGE, ".tensorflow.serving.PrometheusConfig")],
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return pool


def parse_config(name: str, message: str):
    kind = message_factory.GetMessageClass(
        build_messages().FindMessageTypeByName(f"tensorflow.serving.{message}")
    )
    return text_format.Parse((FOLDER / name).read_text(), kind())


def test_model_config_serves_only_the_newest_version():
    config = text_format.Parse(
        (FOLDER / "models.config").read_text(), model_server_config_pb2.ModelServerConfig()
    )
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == (
        MODEL_NAME,
        "/models/eczema",
        "tensorflow",
    )
    assert model.model_version_policy.latest.num_versions == 1


def test_batching_config_matches_the_batch_sizes_of_the_warmup():
    config = parse_config("batching.config", "BatchingParameters")
    assert config.max_batch_size.value == max(BATCH_SIZES)
    assert 0 < config.batch_timeout_micros.value <= 10_000
    assert config.num_batch_threads.value >= 1
    assert config.max_enqueued_batches.value >= 1


def test_monitoring_config_enables_prometheus():
    config = parse_config("monitoring.config", "MonitoringConfig").prometheus_config
    assert config.enable
    assert config.path == "/monitoring/prometheus/metrics"


@pytest.fixture(scope="module")
def compose() -> dict:
    return yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]["eczema"]


def serving_version(image: str) -> tuple[int, ...]:
    assert image.startswith("tensorflow/serving:")
    return tuple(int(part) for part in image.split(":")[1].split("."))


def check_flags(flags: list[str]) -> None:
    """Checks that the server knows the flags, and that the files they name exist."""
    values = dict(flag.removeprefix("--").split("=", 1) for flag in flags)
    known = {
        "port",
        "rest_api_port",
        "rest_api_timeout_in_ms",
        "model_config_file",
        "enable_batching",
        "batching_parameters_file",
    }
    assert set(values) <= known | {
        "monitoring_config_file",
        "file_system_poll_wait_seconds",
    }  # model_servers/main.cc
    assert values["rest_api_port"] == "8501"
    assert values["enable_batching"] == "true"
    for name in ("model_config_file", "batching_parameters_file", "monitoring_config_file"):
        assert values[name].startswith("/config/")
        assert (FOLDER / values[name].removeprefix("/config/")).is_file()


def test_compose_service_is_confined_and_only_on_loopback(compose: dict):
    assert serving_version(compose["image"]) >= (2, 20)
    assert compose["ports"]
    assert all(port.startswith("127.0.0.1:") for port in compose["ports"])
    assert all(volume["read_only"] for volume in compose["volumes"])
    assert all(
        (FOLDER / volume["source"]).exists()
        for volume in compose["volumes"]
        if volume["source"].startswith("./")
    )
    assert (FOLDER / compose["volumes"][0]["source"]).resolve() == ROOT / "saved_models" / "eczema"
    assert compose["read_only"] is True
    assert compose["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in compose["security_opt"]
    assert not {"privileged", "cap_add", "devices", "network_mode", "pid", "ipc"} & set(compose)
    assert compose["user"].split(":")[0] not in ("0", "root")
    assert {"cpus", "mem_limit", "pids_limit"} <= set(compose)


def test_compose_mounts_the_files_that_its_flags_name(compose: dict):
    check_flags(compose["command"])
    mounted = {volume["target"] for volume in compose["volumes"]}
    assert {flag.split("=")[1] for flag in compose["command"] if "/config/" in flag} <= mounted
    assert "/models/eczema" in mounted


def test_health_check_requests_the_status_of_the_model(compose: dict):
    script = compose["healthcheck"]["test"][-1]
    assert compose["healthcheck"]["test"][:3] == ["CMD", "bash", "-c"]
    assert "/v1/models/eczema HTTP/1.0" in script
    assert subprocess.run(["bash", "-n", "-c", script], check=False).returncode == 0


def test_docker_run_line_is_as_strict_as_compose(compose: dict):
    line = (
        re.search(r"docker run .*?\n```", (FOLDER / "README.md").read_text(), re.DOTALL)
        .group()
        .removesuffix("```")
    )
    words = shlex.split(line.replace("\\\n", " "))
    place = words.index(compose["image"])
    options, flags = words[:place], words[place + 1 :]
    check_flags(flags)
    given = dict(pairwise(options))
    assert "--read-only" in options
    assert given["--cap-drop"] == compose["cap_drop"][0]
    assert given["--security-opt"] == compose["security_opt"][0].removesuffix(":true")
    assert given["--user"] == compose["user"]
    assert given["--cpus"] == str(compose["cpus"])
    assert given["--memory"] == compose["mem_limit"]
    assert given["--pids-limit"] == str(compose["pids_limit"])
    ports, mounts = (
        [value for word, value in pairwise(options) if word == name] for name in ("-p", "-v")
    )
    assert ports == compose["ports"][:1]  # only REST
    assert {mount.split(":")[1] for mount in mounts} == {"/models/eczema", "/config"}
    assert all(mount.endswith(":ro") for mount in mounts)
    assert not {"--publish", "--volume", "--mount", "--network"} & set(options)
    assert "--privileged" not in options
    assert (
        options[options.index("--entrypoint") + 1]
        == compose["entrypoint"][0]
        == "tensorflow_model_server"
    )


def test_kserve_service_is_confined_and_cluster_local():
    service = yaml.safe_load((FOLDER / "kserve.yaml").read_text())
    assert (service["apiVersion"], service["kind"]) == (
        "serving.kserve.io/v1beta1",
        "InferenceService",
    )
    assert service["metadata"]["name"] == MODEL_NAME
    assert service["metadata"]["labels"]["networking.kserve.io/visibility"] == "cluster-local"
    predictor = service["spec"]["predictor"]
    model = predictor["model"]
    assert model["modelFormat"]["name"] == "tensorflow"
    assert serving_version(f"tensorflow/serving:{model['runtimeVersion']}") >= (2, 20)
    assert set(model["resources"]["limits"]) == {"cpu", "memory"}
    assert predictor["securityContext"]["runAsNonRoot"] is True
    assert model["securityContext"]["allowPrivilegeEscalation"] is False
    assert model["securityContext"]["privileged"] is False
    assert model["securityContext"]["readOnlyRootFilesystem"] is True
    assert model["readinessProbe"]["httpGet"]["path"] == "/v1/models/eczema"
