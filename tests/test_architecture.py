"""The rules of docs/architecture.md: imports run one way, and packages of one row do not know each other."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "eczema_tf"
FLOOR = ("__init__", "__version__", "schema", "errors", "files", "cli", "config", "documents")
ROWS = {
    **dict.fromkeys(FLOOR, 0),
    "data": 1,
    "model": 2,
    "training": 3,
    "evaluation": 3,
    "attribution": 3,
    "serving": 3,
}
PROCEDURES = 4  # runs, scoring, experiment, release, and the commands
COMMANDS = ("prepare", "train", "evaluate", "explain", "export", "predict")
SLOW = ("tensorflow", "keras", "keras_hub", "tensorflow_text")


def imported_modules(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= (
                {f"{node.module}.{alias.name}" for alias in node.names}
                if node.module == "eczema_tf"
                else {node.module}
            )
    return names


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def test_imports_run_one_way():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for module in imported_modules(path):
            if not module.startswith("eczema_tf"):
                continue
            other = part_of(module)
            own_row, other_row = ROWS.get(own, PROCEDURES), ROWS.get(other, PROCEDURES)
            same_row_stranger = own != other and own_row == other_row == 3
            if other_row > own_row or same_row_stranger:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {module}")
    assert not wrong


def test_commands_answer_before_tensorflow_is_loaded():
    for command in COMMANDS:
        modules = imported_modules(PACKAGE / f"{command}.py", top_level_only=True)
        assert not {module.split(".")[0] for module in modules} & set(SLOW)
        assert not {part_of(module) for module in modules if module.startswith("eczema_tf")} - set(
            FLOOR
        ), command


def test_evaluation_needs_no_tensorflow():
    for path in (PACKAGE / "evaluation").glob("*.py"):
        assert not {module.split(".")[0] for module in imported_modules(path)} & set(SLOW)


def test_nothing_executable_is_ever_loaded():
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        for call in (
            "import pickle",
            " eval(",
            "Lambda(",
            "allow_pickle=True",
            "yaml.unsafe",
            "shell=True",
        ):
            assert call not in text.replace("ast.literal_eval(", ""), f"{path.name}: {call}"
