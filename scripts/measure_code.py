"""Counts what can be counted in the package's code: statements, lengths, helpers, modules.

    python scripts/measure_code.py

Statements are those of `ast`, except docstrings. Lines of a function are those with code on them. A
private helper is named once if its module names it in only one place besides its definition.
"""

import ast
import io
import re
import statistics
import tokenize
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "eczema_tf"
LAYOUT = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
)


def is_docstring(node: ast.stmt) -> bool:
    """Whether a statement is a string by itself."""
    constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return constant and isinstance(node.value.value, str)


def count_code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef, code: set[int]) -> int:
    """Counts the code lines of a function, with its signature but without its docstring."""
    lines = code & set(range(function.lineno, function.end_lineno + 1))
    first = function.body[0]
    if is_docstring(first):
        lines -= set(range(first.lineno, first.end_lineno + 1))
    return len(lines)


def main() -> None:
    """Prints the counts."""
    statements, lines, helpers, lengths, untyped, long = 0, 0, 0, [], 0, []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        nodes = list(ast.walk(ast.parse(text)))
        lines += text.count("\n")
        untyped += len(re.findall(r"(?:dict|Mapping)\[str, Any\]", text))
        statements += sum(isinstance(node, ast.stmt) and not is_docstring(node) for node in nodes)
        code = {
            line
            for token in tokenize.generate_tokens(io.StringIO(text).readline)
            if token.type not in LAYOUT
            for line in range(token.start[0], token.end[0] + 1)
        }
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lengths.append(count_code_lines(node, code))
                private = node.name.startswith("_") and not node.name.startswith("__")
                helpers += private and len(re.findall(rf"\b{node.name}\b", text)) == 2
                if lengths[-1] > 40:
                    long.append(f"{path.relative_to(PACKAGE)}:{node.name} ({lengths[-1]})")
    lengths.sort()
    print(f"statements {statements}, lines {lines}, functions {len(lengths)}")
    print(f"code lines of a function: median {statistics.median(lengths)},", end=" ")
    print(f"p90 {lengths[int(0.9 * len(lengths))]}; over 40: {', '.join(long) or 'none'}")
    print(f"private helpers named once: {helpers} ({helpers / len(lengths):.0%} of functions)")
    print(f"dict[str, Any]: {untyped} ({1000 * untyped / lines:.1f} in 1,000 lines)")
    print(f"modules at the top: {len(list(PACKAGE.glob('*.py')))}")


if __name__ == "__main__":
    main()
