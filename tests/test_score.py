"""Tests of batch scoring: each row is scored exactly once, even if it is bad or a worker dies."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet
from scipy.special import expit, logit
from test_serving import METADATA

from eczema_tf.batch.cases import check_cases_file
from eczema_tf.batch.job import JOB, Job, open_job
from eczema_tf.batch.spark import check_spark, forgive_failures, open_session
from eczema_tf.batch.worker import prepare_photo
from eczema_tf.data.manifest.stream import Row, Survey, survey_manifest
from eczema_tf.data.photo.upright import upright_jpeg
from eczema_tf.errors import EczemaError, RunError
from eczema_tf.schema import NOTICE
from eczema_tf.score import main
from eczema_tf.serving.columns import FLAGS, PROBABILITIES, arrange_answers
from eczema_tf.serving.exported import ExportedModel
from eczema_tf.serving.graph.served_model import NOTHING
from eczema_tf.serving.graph.signature import SERVE
from eczema_tf.workflows import score as workflow

ROWS, CHUNK_ROWS, PATIENCE_S = 2000, 1000, 300
SIDEWAYS = "photos/sideways.jpg"
# This photo is only in the second chunk. The first worker that opens it is killed by SIGKILL.
DEADLY, DEADLY_ROW = "photos/deadly.jpg", 1501
# Python runs this `sitecustomize.py` when it starts, if it finds it in PYTHONPATH. A worker is
# therefore killed at a known place, however fast or slow the machine is.
KILLER = """
import os, signal, sys

def die(event, arguments):
    if event == "open" and str(arguments[0]).endswith("deadly.jpg"):
        try:
            os.close(os.open({mark!r}, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(die)
"""
BAD = {  # what is wrong with a row -> its image_path, its text, the beginning of its status
    "gone": ("photos/gone.jpg", "it itches", "photo: no such photo"),
    "gone, no text": ("photos/gone.jpg", "", "photo: no such photo"),
    "outside": ("../outside.jpg", "it itches", "photo: leaves the manifest's folder"),
    "absolute": ("/etc/passwd", "", "photo: is absolute"),
    "link": ("link.jpg", "it itches", "photo: leaves the manifest's folder"),
    "loop": ("loop.jpg", "it itches", "photo: is not a path"),
    "folder": ("photos", "it itches", "photo: is not a file"),
    "long": ("x" * 5000, "it itches", "photo: "),
    "fifo": ("fifo.jpg", "", "photo: is not a file"),
    "cut": ("cut.jpg", "it itches", "photo: cannot be read: truncated or damaged"),
    "nothing": ("nothing.jpg", "it itches", "photo: has 0 bytes"),
    "html": ("html.jpg", "", "photo: cannot be read"),
    "noise": ("noise.jpg", "it itches", "photo: cannot be read"),
    "bomb": ("bomb.png", "it itches", "photo: "),
    "both": ("cut.jpg", "\x01", "photo: cannot be read: truncated or damaged"),
    "control": ("", "\x01\x02", "text: nothing readable in it"),
    "empty": ("", "", NOTHING),
    "blank": ("  ", " \n ", NOTHING),
    "short": (None, "", "row: has 2 fields; allowed: 4"),
    "huge": ("huge.jpg", "", "photo: has 60000000 bytes"),
}


def write_photo(path: Path, seed: int, **options) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (44, 60, 3)).astype("uint8")
    pixels[:22] //= 4  # so that turning a photo changes it
    Image.fromarray(pixels).save(path, "JPEG", **options)


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 2,000 rows over 40 photos; 20 of the rows are bad, each in a different way."""
    folder = tmp_path_factory.mktemp("clinic") / "data"
    (folder / "photos").mkdir(parents=True)
    for seed in range(40):
        write_photo(folder / f"photos/{seed}.jpg", seed)
    exif = Image.Exif()
    exif[0x0112] = 6
    write_photo(folder / SIDEWAYS, 99, exif=exif)
    write_photo(folder / DEADLY, 98)
    write_photo(folder.parent / "outside.jpg", 0)
    (folder / "link.jpg").symlink_to(folder.parent / "outside.jpg")
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    os.mkfifo(folder / "fifo.jpg")
    good = (folder / "photos/0.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(good[:700])
    (folder / "nothing.jpg").touch()
    (folder / "html.jpg").write_bytes(b"<html>" + b"x" * 100)
    (folder / "noise.jpg").write_bytes(b"\xff\xd8\xff" + bytes(range(256)) * 8)
    Image.new("1", (12000, 12000)).save(folder / "bomb.png")
    with (folder / "huge.jpg").open("wb") as file:
        file.truncate(60_000_000)
    write_manifest(folder / "manifest.csv")
    return folder


def write_manifest(path: Path) -> None:
    lines = ["example_id,case_id,image_path,text"]
    bad = dict(zip(range(50, ROWS, ROWS // len(BAD)), BAD.values(), strict=True))
    for row in range(ROWS):
        image_path, text, _ = bad.get(
            row,
            (
                f"photos/{row % 40}.jpg" if row % 5 else "",
                f"my skin is itchy {row % 7}" if row % 3 else "",
                "",
            ),
        )
        if not bad.get(row) and not image_path and not text:
            image_path = SIDEWAYS
        if row == DEADLY_ROW:
            image_path = DEADLY
        fields = [f"-{row}-x", f"c{row // 2}" if row % 4 else "", image_path, f'"{text}"']
        lines.append(",".join(fields if image_path is not None else fields[:2]))
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def export(small_export: Path) -> Path:
    return small_export


class Scored:
    """The output of a job during which a Python worker was killed."""

    def __init__(self, out: Path, arguments: list[str], said: str):
        self.out, self.arguments, self.said = out, arguments, said
        self.table = pd.read_parquet(out)
        self.job = json.loads((out / JOB).read_text())


@pytest.fixture(scope="module")
def scored(clinic: Path, export: Path, tmp_path_factory: pytest.TempPathFactory) -> Scored:
    try:
        check_spark()
    except EczemaError as error:
        pytest.skip(str(error))
    out = tmp_path_factory.mktemp("scores") / "out"
    arguments = [
        "--model",
        str(export.parent),
        "--manifest",
        str(clinic / "manifest.csv"),
        "--out",
        str(out),
        "--chunk-rows",
        str(CHUNK_ROWS),
    ]
    said = run_and_kill_a_worker(arguments, tmp_path_factory.mktemp("killer"))
    assert not list(out.glob(".*"))
    return Scored(out, arguments, said)


def run_and_kill_a_worker(arguments: list[str], killer: Path) -> str:
    """Runs a job, has a worker killed in the second chunk, and returns the standard output."""
    mark = killer / "killed"
    (killer / "sitecustomize.py").write_text(KILLER.format(mark=str(mark)))
    # leaves the processor to the code under test
    calm_java = {"JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
    done = run_score(arguments, calm_java | {"PYTHONPATH": str(killer)})
    assert mark.exists()
    return done.stdout


def run_score(
    arguments: list[str], environment: dict[str, str]
) -> "subprocess.CompletedProcess[str]":
    """Runs a job in a separate process, which must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "eczema_tf.score", *arguments],
        cwd=Path(__file__).parents[1],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def test_each_row_is_scored_once_and_in_order_after_a_worker_is_killed(scored: Scored):
    assert scored.table["example_id"].tolist() == [f"-{row}-x" for row in range(ROWS)]
    assert scored.table["case_id"].tolist() == [
        f"c{row // 2}" if row % 4 else f"-{row}-x" for row in range(ROWS)
    ]
    assert scored.job["rows_retried"] >= 1


def test_bad_rows_get_a_status_and_do_not_affect_other_rows(scored: Scored):
    statuses = scored.table["status"]
    assert np.flatnonzero(statuses != "ok").tolist() == list(range(50, ROWS, 100))
    for (name, (_, text, begins)), row in zip(
        BAD.items(), scored.table.iloc[50::100].to_dict("records"), strict=True
    ):
        assert row["status"].startswith(begins), name
        assert not row["image_used"], name
        assert row["text_used"] == (text == "it itches"), name
        assert row["status"].endswith("; text: nothing readable in it") == (name == "both"), name


def test_probabilities_are_null_exactly_where_their_modality_is_unused(scored: Scored):
    table = scored.table
    text = [column for column in PROBABILITIES if column.startswith(("eczema_text", "consistency"))]
    either = [column for column in PROBABILITIES if column not in (*text, "eczema_image")]
    assert (table["eczema_image"].notna() == table["image_used"]).all()
    assert all((table[column].notna() == table["text_used"]).all() for column in text)
    assert all(
        (table[column].notna() == (table["image_used"] | table["text_used"])).all()
        for column in either
    )
    raw = parquet.read_table(scored.out)
    assert raw["eczema_image"].null_count == (~table["image_used"]).sum()  # null, not NaN
    columns = ["example_id", "case_id", "decision", "reason", *PROBABILITIES, *FLAGS, "status"]
    assert raw.schema.names == columns  # no text
    assert {str(raw.schema.field(name).type) for name in PROBABILITIES} == {"float"}


def test_scores_equal_those_of_the_exported_model_on_upright_photos(
    scored: Scored, clinic: Path, export: Path
):
    rows = [1, 2, 3, 4, 5, 6, 7, 8, 15, 30]  # both, only a photo, only a text, a sideways photo
    lines = pd.read_csv(clinic / "manifest.csv", nrows=40, keep_default_na=False).iloc[rows]
    assert SIDEWAYS in set(lines["image_path"])
    stored = [(clinic / path).read_bytes() if path else b"" for path in lines["image_path"]]
    model = ExportedModel(export, [SERVE])
    upright = model.run(
        [upright_jpeg(photo) if photo else b"" for photo in stored], list(lines["text"])
    )
    np.testing.assert_allclose(scored.table["eczema"][rows], upright["eczema"], atol=1e-5)
    np.testing.assert_allclose(
        scored.table["severity_severe"][rows], upright["severity"][:, 2], atol=1e-5
    )
    # turning a photo changes its score
    assert np.abs(upright["eczema"] - model.run(stored, list(lines["text"]))["eczema"]).max() > 1e-3


def test_job_file_records_the_inputs_and_counts_rows_by_status(scored: Scored):
    assert list(scored.job) == [
        "model",
        "manifest",
        "chunk_rows",
        "keep_text",
        "eczema_tf",
        "notice",
        "rows",
        "statuses",
        "rows_retried",
    ]
    assert scored.job["model"]["version"] == "3"
    assert (
        scored.job["manifest"]["rows"]
        == scored.job["rows"]
        == sum(scored.job["statuses"].values())
        == ROWS
    )
    assert scored.job["statuses"]["ok"] == ROWS - len(BAD)
    assert scored.job["statuses"][NOTHING] == 2
    assert scored.job["notice"] == NOTICE
    assert NOTICE in scored.said
    assert "1980  ok" in scored.said


def test_finished_job_is_not_scored_again(
    scored: Scored, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        "eczema_tf.workflows.score.check_spark", lambda: pytest.fail("Spark is not needed")
    )
    assert main(scored.arguments) == 0
    assert "2000 rows were already scored" in capsys.readouterr().out


def test_cases_are_pooled_from_the_scored_rows(scored: Scored, tmp_path: Path):
    file = tmp_path / "cases.parquet"
    assert main([*scored.arguments, "--cases", str(file)]) == 0
    cases, rows = pd.read_parquet(file).set_index("case_id"), scored.table
    assert cases.index.tolist() == rows["case_id"].drop_duplicates().tolist()
    assert cases["rows"].sum() == ROWS
    alone = cases[cases["rows"] == 1]
    own = rows.set_index("case_id").loc[alone.index]
    shared = [*PROBABILITIES, *FLAGS, "decision", "reason", "status"]
    pd.testing.assert_frame_equal(alone[shared], own[shared])
    both = rows[rows["image_used"] & rows["text_used"] & rows["known_image"] & rows["known_text"]]
    pairs = both.groupby("case_id").filter(lambda case: len(case) == 2)
    mean = logit(pairs["eczema"].astype("float64")).groupby(pairs["case_id"]).mean()
    assert len(mean) > 90
    np.testing.assert_allclose(cases["eczema"][mean.index], expit(mean), atol=1e-5)


@pytest.fixture
def small(clinic: Path, tmp_path: Path) -> list[str]:
    """Arguments of a job of seven rows, three per part."""
    lines = (clinic / "manifest.csv").read_text().splitlines()[:8]
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    return [
        "--manifest",
        str(tmp_path / "manifest.csv"),
        "--out",
        str(tmp_path / "out"),
        "--chunk-rows",
        "3",
    ]


class Stub:
    """Replaces Spark: answers, or stops after some chunks, and records the rows it is given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.asked: list[list[str]] = []
        self.stops_after = 99
        monkeypatch.setattr(workflow, "check_spark", lambda: None)
        monkeypatch.setattr(
            workflow, "open_session", lambda master, debug: contextlib.nullcontext()
        )
        monkeypatch.setattr(workflow, "build_udf", lambda *_, **__: None)
        monkeypatch.setattr(workflow, "score_chunk", lambda spark, score, rows: self.answer(rows))

    def answer(self, rows: list[Row]) -> pa.Table:
        if len(self.asked) == self.stops_after:
            raise KeyboardInterrupt
        self.asked.append([row.example_id for row in rows])
        figures = {name: pa.array([0.5] * len(rows), pa.float32()) for name in PROBABILITIES}
        flags = {name: pa.array([1] * len(rows), pa.int8()) for name in (*FLAGS, "attempt")}
        said = {"status": ["ok"] * len(rows), "decision": ["eczema"] * len(rows)}
        return pa.table({**figures, **flags, **said})


def test_stopped_job_continues_with_the_missing_parts(
    small: list[str], export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    spark = Stub(monkeypatch)
    spark.stops_after = 1
    assert main(["--model", str(export), *small]) == 1
    assert [part.name for part in (tmp_path / "out").glob("*.parquet")] == ["part-000000.parquet"]
    # left by a killed job
    (tmp_path / "out" / ".writing-abc-part-000001.parquet").write_bytes(b"half")
    spark.stops_after = 99
    assert main(["--model", str(export), *small]) == 0
    assert spark.asked == [["-0-x", "-1-x", "-2-x"], ["-3-x", "-4-x", "-5-x"], ["-6-x"]]
    assert pd.read_parquet(tmp_path / "out")["example_id"].tolist() == [
        f"-{row}-x" for row in range(7)
    ]
    (tmp_path / "out" / "part-000001.parquet").unlink()
    assert main(["--model", str(export), *small]) == 0
    assert spark.asked[3:] == [["-3-x", "-4-x", "-5-x"]]
    assert main(["--model", str(export), *small, "--cases", str(tmp_path / "cases.parquet")]) == 0
    cases = pd.read_parquet(tmp_path / "cases.parquet")
    assert cases["case_id"].tolist() == ["-0-x", "c0", "c1", "-4-x", "c2", "c3"]
    assert cases["rows"].tolist() == [1, 1, 2, 1, 1, 1]


def test_cases_option_needs_case_ids_in_the_manifest(
    small: list[str], export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "manifest.csv").write_text("example_id,text\na,itchy\n")
    assert main(["--model", str(export), *small, "--cases", "cases.parquet"]) == 1
    assert "names no cases; give its rows a case_id" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_cases_option_does_not_overwrite_files_without_cases(
    small: list[str], export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("example_id,case_id,text\na,c,itchy\n")
    pd.DataFrame({"case_id": ["c"]}).to_parquet(tmp_path / "other.parquet")
    for file in (manifest, tmp_path / "other.parquet"):
        before = file.read_bytes()
        assert main(["--model", str(export), *small, "--cases", str(file)]) == 1
        assert "exists and contains no answers on cases" in capsys.readouterr().err
        assert file.read_bytes() == before
    earlier = pd.DataFrame({name: ["c"] for name in ("case_id", "rows", "decision", "reason")})
    earlier.to_parquet(tmp_path / "cases.parquet")
    survey = survey_manifest(manifest)
    check_cases_file(tmp_path / "cases.parquet", manifest, survey, tmp_path / "out")
    for within in ("cases.parquet", "below/cases.parquet"):
        with pytest.raises(EczemaError, match="are read as rows; name a file elsewhere"):
            check_cases_file(tmp_path / "out" / within, manifest, survey, tmp_path / "out")


def test_job_is_not_resumed_with_another_manifest_model_or_setting(
    small: list[str],
    export: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    Stub(monkeypatch)
    assert main(["--model", str(export), *small]) == 0
    capsys.readouterr()

    def refuses(*arguments: str) -> str:
        assert main([*arguments, *small]) == 1
        return capsys.readouterr().err

    other = shutil.copytree(export, tmp_path / "models" / export.name)
    METADATA.model_copy(update={"eczema_tf": "0.0.1"}).write(other)
    assert "model: was" in refuses("--model", str(other))
    assert "keep_text: was false, and is now true" in refuses("--model", str(export), "--keep-text")
    assert main(["--model", str(export), *small, "--chunk-rows", "4"]) == 1
    assert "chunk_rows: was 3, and is now 4" in capsys.readouterr().err
    with (tmp_path / "manifest.csv").open("a") as file:
        file.write("\nanother,,,text\n")
    assert "manifest: was" in refuses("--model", str(export))


def test_spark_encrypts_its_files_in_a_private_folder_removed_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
):
    spark = pytest.importorskip("pyspark.sql", reason="pip install -r requirements-spark.txt")
    asked: dict[str, str] = {}

    def start(builder: Any) -> contextlib.AbstractContextManager:
        asked.update(builder._options)
        assert not Path(asked["spark.local.dir"]).stat().st_mode & 0o077  # only for its owner
        return contextlib.nullcontext()

    monkeypatch.setattr(spark.SparkSession.Builder, "getOrCreate", start)
    with (
        pytest.raises(RunError, match="Java process has ended"),
        open_session("local[1]", debug=False),
    ):
        raise ConnectionRefusedError
    assert asked["spark.io.encryption.enabled"] == "true"
    assert not Path(asked["spark.local.dir"]).exists()


def test_clinical_columns_are_passed_to_a_model_that_takes_them(tmp_path: Path, told_export: Path):
    try:
        check_spark()
    except EczemaError as error:
        pytest.skip(str(error))
    cells = ["50,female", ",male", "old,female", ","]
    lines = [f"{row},c,itchy,{cell}" for row, cell in enumerate(cells)]
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("\n".join(["example_id,case_id,text,age,sex", *lines]))
    arguments = ["--manifest", str(manifest), "--out", str(tmp_path / "out")]
    done = run_score(["--model", str(told_export), *arguments], {})
    assert "note:" not in done.stderr
    table = pd.read_parquet(tmp_path / "out")
    told = ["age=50; sex=female", "sex=male", "sex=female", ""]
    expected = ExportedModel(told_export).run([b""] * 4, ["itchy"] * 4, "clinical", told)
    np.testing.assert_allclose(table["eczema"], expected["eczema"], rtol=1e-3)
    assert table["eczema"].nunique() == 4
    assert table["status"].str.partition(":")[0].tolist() == ["ok", "ok", "clinical", "ok"]


def test_clinical_fields_without_a_column_are_named_in_a_note(
    small: list[str],
    export: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    Stub(monkeypatch)
    other = shutil.copytree(export, tmp_path / "models" / "4")
    fields = {"text": (), "age": (), "sex": ("female", "male")}
    METADATA.model_copy(update={"clinical": fields}).write(other)
    assert main(["--model", str(other), *small]) == 0
    said = capsys.readouterr().err
    assert "note: manifest.csv has no column age, sex: unknown for every row\n" in said


def test_texts_are_written_only_with_keep_text(
    small: list[str], export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    Stub(monkeypatch)
    assert main(["--model", str(export), *small]) == 0
    assert "text" not in pd.read_parquet(tmp_path / "out").columns
    shutil.rmtree(tmp_path / "out")
    assert main(["--model", str(export), *small, "--keep-text"]) == 0
    table = pd.read_parquet(tmp_path / "out")
    assert table["text"].tolist()[:3] == ["", "my skin is itchy 1", "my skin is itchy 2"]


def test_folder_without_a_valid_job_is_refused(
    small: list[str], export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.docx").touch()
    assert main(["--model", str(export), *small]) == 1
    assert "contains no scoring job" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.docx"]
    (tmp_path / "out" / JOB).write_text("[1]")
    assert main(["--model", str(export), *small]) == 1
    assert "_job.json: damaged" in capsys.readouterr().err


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job of five rows, two per part, whose parts all exist."""
    (tmp_path / "model").mkdir()
    job = open_job(
        tmp_path / "job",
        tmp_path / "model",
        tmp_path / "m.csv",
        Survey(5, False, "abc", []),
        chunk_rows=2,
        keep_text=False,
    )
    for number, ids in enumerate(("ab", "cd", "e")):
        job.commit(
            number, pa.table({"example_id": list(ids), "status": ["ok (with details)"] * len(ids)})
        )
    return job


def test_job_killed_before_it_wrote_its_facts_starts_anew(tmp_path: Path, job: Job):
    (tmp_path / "new" / ".writing-_job.json-abc").mkdir(parents=True)
    survey = Survey(5, False, "abc", [])
    paths = tmp_path / "new", tmp_path / "model", tmp_path / "m.csv"
    assert open_job(*paths, survey, chunk_rows=2, keep_text=False).find_missing() == [0, 1, 2]


def test_job_is_finished_when_each_row_exists_once(job: Job):
    assert job.find_missing() == []
    assert job.find_summary() is None
    assert job.finish("abcde", 0).statuses == {"ok": 5}
    assert job.find_summary().rows == 5


def test_statuses_of_cut_texts_are_counted_together(job: Job):
    read = ["text: read to word 8 of 9", "text: read to word 70 of 801"]
    job.commit(0, pa.table({"example_id": ["a", "b"], "status": read}))
    assert job.finish("abcde", 0).statuses == {"ok": 3, "text: read to word N of M": 2}


def test_counted_statuses_leave_out_names_and_sizes_of_files(job: Job, tmp_path: Path):
    near, said = ["patient 7.JPG", "it's.JPG"], []
    for name in near:
        (tmp_path / name).touch()
        said.append(prepare_photo(name.lower(), tmp_path)[1])
    job.commit(0, pa.table({"example_id": ["a", "b"], "status": said}))
    assert near[0] in said[0]
    for size in (3, 4):
        (tmp_path / f"{size}.jpg").write_bytes(bytes(size))
    sizes = [prepare_photo(f"{size}.jpg", tmp_path)[1] for size in (3, 4)]
    job.commit(1, pa.table({"example_id": ["c", "d"], "status": sizes}))
    statuses = job.finish("abcde", 0).statuses
    assert sorted(statuses.values()) == [1, 2, 2]
    assert not any(word in status for status in statuses for word in ("patient", "it's"))


@pytest.mark.parametrize(
    ("number", "ids"), [(1, "c"), (1, "cdd"), (1, "cx"), (1, "dc"), (2, ""), (2, "ef"), (3, "f")]
)
def test_lost_repeated_or_foreign_rows_fail_the_job(job: Job, number: int, ids: str):
    job.commit(
        number,
        pa.table(
            {
                "example_id": pa.array(list(ids), pa.string()),
                "status": pa.array(["ok"] * len(ids), pa.string()),
            }
        ),
    )
    with pytest.raises(RunError, match=f"part-00000{number}.parquet"):
        job.finish("abcde", 0)
    assert job.find_summary() is None


def test_damaged_part_fails_the_job(job: Job):
    (job.folder / "part-000001.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunError, match=r"part-000001\.parquet: cannot be read"):
        job.finish("abcde", 0)


def test_arrange_answers_matches_a_handmade_table():
    outputs = {
        "eczema": np.array([0.9, 0.8, 0.7, 0.5], "float32"),
        "eczema_image": np.array([0.1, 0.2, 0.3, 0.5], "float32"),
        "eczema_text": np.array([0.4, 0.5, 0.6, 0.5], "float32"),
        "consistency": np.tile(np.array([0.2, 0.3, 0.5], "float32"), (4, 1)),
        "severity": np.tile(np.array([0.6, 0.3, 0.1], "float32"), (4, 1)),
        "image_used": np.array([True, True, False, False]),
        "text_used": np.array([True, False, True, False]),
        "known_image": np.array([True, False, False, False]),
        "known_text": np.array([True, False, True, False]),
        "decision": np.array([b"eczema", b"cannot tell", b"not eczema", b"cannot tell"], object),
        "status": np.array([b"ok", b"ok", b"text: read to word 1 of 2", NOTHING.encode()], object),
    }
    table = pd.DataFrame(arrange_answers(outputs, ["", "", "photo: gone", "photo: gone"]))
    nan = np.nan
    expected = {
        "eczema": [0.9, 0.8, 0.7, nan],
        "eczema_image": [0.1, 0.2, nan, nan],
        "eczema_text": [0.4, nan, 0.6, nan],
        "consistency_eczema": [0.2, nan, 0.2, nan],
        "consistency_other": [0.3, nan, 0.3, nan],
        "consistency_unclear": [0.5, nan, 0.5, nan],
        "severity_mild": [0.6] * 3 + [nan],
        "severity_moderate": [0.3] * 3 + [nan],
        "severity_severe": [0.1] * 3 + [nan],
    }
    pd.testing.assert_frame_equal(table[list(expected)], pd.DataFrame(expected).astype("float32"))
    both = "photo: gone; text: read to word 1 of 2"
    assert table["status"].tolist() == ["ok", "ok", both, "photo: gone"]
    assert table["image_used"].tolist() == [1, 1, 0, 0]
    assert table["known_image"].tolist() == [1, 0, 0, 0]
    assert table["decision"].tolist() == ["eczema", "cannot tell", "not eczema", "cannot tell"]


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("local", "local[1,4]"),
        ("local[2]", "local[2,4]"),
        ("local[*]", "local[*,4]"),
        ("local[2,1]", "local[2,1]"),
        ("spark://head:7077", "spark://head:7077"),
        ("yarn", "yarn"),
        ("local-cluster[2,1,1024]", "local-cluster[2,1,1024]"),
    ],
)
def test_local_master_allows_as_many_task_failures_as_a_cluster(asked: str, given: str):
    assert forgive_failures(asked) == given


def test_error_says_how_to_install_missing_pyspark_or_java(
    small: list[str],
    export: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["--model", str(export), *small]) == 1
    assert (
        capsys.readouterr().err
        == "error: batch scoring needs pyspark, which is not installed; install it: pip install -r"
        " requirements-spark.txt\n"
    )
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(
        EczemaError,
        match=(
            r"needs Java 17 or newer; found: none in JAVA_HOME .*apt-get install"
            r" openjdk-17-jre-headless"
        ),
    ):
        check_spark()
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EczemaError, match="found: none in the PATH"):
        check_spark()


@pytest.mark.parametrize(
    ("says", "good"),
    [
        ('"1.8.0_392"', False),
        ('"11.0.2"', False),
        ('"17.0.15" 2025-04-15', True),
        ('"21"', True),
        ("?", False),
    ],
)
def test_java_17_or_newer_is_required(
    says: str, good: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\necho 'openjdk version {says}' >&2\n")
    java.chmod(0o755)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with (
        contextlib.nullcontext()
        if good
        else pytest.raises(EczemaError, match=r"needs Java 17 or newer; found: Java (8|11|0) at")
    ):
        check_spark()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--out", "o", "--batch-size", "0"],
        ["--out", "o", "--chunk-rows", "-1"],
        ["--out", "o", "--threads", "two"],
        ["--out"],
    ],
)
def test_bad_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main(["--model", "m", "--manifest", "m.csv", *arguments])
    assert caught.value.code == 2
    assert f"error: argument {arguments[-2:][0]}: " in capsys.readouterr().err
