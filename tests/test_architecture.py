"""Tests of the rules in docs/architecture.md, such as the direction of imports."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import eczema_tf

PACKAGE = Path(__file__).parents[1] / "eczema_tf"
FLOOR = ("__init__", "schema", "errors", "files", "cli", "config")
VERBS = ("prepare", "train", "evaluate", "explain", "search", "export", "predict", "serve", "score")
ROWS = [
    FLOOR,
    ("data",),
    ("model",),
    ("training", "evaluation", "symptoms", "explanation", "serving.graph"),
    ("reporting",),
    ("serving", "batch"),
    ("workflows",),
    (*VERBS, "__main__"),
]
ROW_OF = {part: row for row, parts in enumerate(ROWS) for part in parts}
MIDDLE = 3
SLOW = ("tensorflow", "keras", "keras_hub", "tensorflow_text")


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imported_modules(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Returns the names of imported modules; `from package import module` counts as the module."""
    tree = ast.parse(path.read_text())
    names = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                names.add(full if is_module(full) else node.module)
    return names


def is_module(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def part_of(module: str) -> str:
    """`eczema_tf.serving.graph.guard` belongs to `serving.graph`, `eczema_tf.files` to `files`."""
    first, *rest = module.split(".")[1:] or ["__init__"]
    return "serving.graph" if (first, *rest[:1]) == ("serving", "graph") else first


def own_imports() -> dict[str, set[str]]:
    return {
        module_name(path): {name for name in imported_modules(path) if name.startswith("eczema_tf")}
        for path in PACKAGE.rglob("*.py")
    }


def test_imports_run_one_way():
    wrong = []
    for module, imported in own_imports().items():
        own = part_of(module)
        for name in imported:
            other = part_of(name)
            strangers = own != other and ROW_OF[own] == ROW_OF[other] == MIDDLE
            if ROW_OF[other] > ROW_OF[own] or strangers:
                wrong.append(f"{module} imports {name}")
    assert not wrong


def test_imports_have_no_cycles():
    list(graphlib.TopologicalSorter(own_imports()).static_order())  # raises CycleError


def test_symptoms_import_only_errors_from_the_rest_of_the_package():
    for path in (PACKAGE / "symptoms").glob("*.py"):
        own = {name for name in imported_modules(path) if name.startswith("eczema_tf")}
        assert {part_of(name) for name in own} <= {"symptoms", "errors"}


def test_top_level_has_only_the_verbs_and_the_floor():
    modules = {path.stem for path in PACKAGE.glob("*.py")}
    modules |= {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name in FLOOR}
    assert modules == {*VERBS, *FLOOR, "__main__"}
    assert len(modules) <= 16


def test_each_verb_imports_only_its_workflow_and_the_floor():
    for verb in VERBS:
        modules = imported_modules(PACKAGE / f"{verb}.py")
        own = {name for name in modules if name.startswith("eczema_tf")}
        beyond = {name for name in own if part_of(name) not in FLOOR}
        assert beyond == {f"eczema_tf.workflows.{verb}"}, verb


def test_commands_import_only_the_floor_at_their_top_level():
    for verb in (*VERBS, "__main__"):
        modules = imported_modules(PACKAGE / f"{verb}.py", top_level_only=True)
        assert not {module.split(".")[0] for module in modules} & set(SLOW)
        own = {part_of(module) for module in modules if module.startswith("eczema_tf")}
        assert own <= set(FLOOR), verb


def test_evaluation_and_symptoms_do_not_import_tensorflow():
    for folder in ("evaluation", "symptoms"):
        for path in (PACKAGE / folder).glob("*.py"):
            assert not {name.split(".")[0] for name in imported_modules(path)} & set(SLOW), path


def test_scripts_extend_sys_path_before_they_import_the_package():
    for path in (PACKAGE.parent / "scripts").glob("*.py"):
        before, imported, _ = path.read_text().partition("\nfrom eczema_tf")
        assert not imported or "sys.path.insert(" in before, path.name


def test_package_has_no_calls_that_load_executable_code():
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        if path.name == "torch_file.py":  # its unpickler makes only tensors: tests/test_weights.py
            text = text.replace("import pickle", "", 1)
        for call in (
            "import pickle",
            "pickle.load",
            " eval(",
            "Lambda(",
            "allow_pickle=True",
            "yaml.unsafe",
            "shell=True",
        ):
            assert call not in text.replace("ast.literal_eval(", ""), f"{path.name}: {call}"


def test_type_stub_names_exactly_the_python_api():
    named = set()
    for node in ast.parse((PACKAGE / "__init__.pyi").read_text()).body:
        if isinstance(node, ast.ImportFrom):
            named |= {alias.asname for alias in node.names if alias.asname}
        elif isinstance(node, ast.Assign):
            named |= {target.id for target in node.targets}
    assert named == set(eczema_tf._API)


def test_python_api_is_complete_and_importing_it_loads_nothing_slow():
    code = """
import sys
import eczema_tf
slow = {"tensorflow", "keras", "pandas", "numpy", "pydantic"} & set(sys.modules)
assert not slow, slow
assert eczema_tf.load_config().train.epochs
assert not {"tensorflow", "keras", "pandas"} & set(sys.modules)
for name in dir(eczema_tf):
    getattr(eczema_tf, name)
try:
    eczema_tf.nothing
except AttributeError:
    print("as it should be")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "as it should be\n", done.stderr
