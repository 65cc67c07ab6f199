"""Limits that keep the code readable and the rules pure, checked on the syntax tree of every module."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

TOP: Final = Path(__file__).parents[1]
PACKAGE: Final = TOP / "clustersession"
MODULES: Final = sorted(PACKAGE.rglob("*.py"))
CORE: Final = [path for path in MODULES if path.is_relative_to(PACKAGE / "core")]

FUNCTION_LINES_MAX: Final = 70
CORE_MODULE_LINES_MAX: Final = 400
MODULE_LINES_MAX: Final = 400

BUILTINS: Final = {"open", "print", "input"}
IMPURE: Final = {"now", "utcnow", "today", "uuid1", "uuid4", "urandom", "getrandom", "token_bytes", "monotonic"}
ENVIRONMENT: Final = {"environ", "environb", "getenv", "getenvb", "putenv"}

# Where any exception at all is caught, as "module::function", and why nothing narrower does.
CATCHES_ALL: Final = {
    "clustersession/transport/serving.py::_answer": "a fault while one call is served must end that connection, not the node",
    "clustersession/integrations/flask_adoption.py::_opened": "whatever the old store's client raises is no answer",
    "clustersession/integrations/flask_adoption.py::_saved": "the same",
    "clustersession/integrations/django/adoption.py::_asked": "whatever the engine's database or cache raises: the same",
}


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def name_of(path: Path) -> str:
    return str(path.relative_to(TOP))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def catches_all(path: Path) -> Iterator[str]:
    """Functions of a module that catch `Exception`, `BaseException` or everything, and don't raise it again."""
    for function in functions(path):
        for node in ast.walk(function):
            if isinstance(node, ast.ExceptHandler) and is_broad(node.type) and not raises_again(node):
                yield f"{name_of(path)}::{function.name}"


def is_broad(caught: ast.expr | None) -> bool:
    if isinstance(caught, ast.Tuple):
        return any(map(is_broad, caught.elts))
    return caught is None or (isinstance(caught, ast.Name) and caught.id in ("Exception", "BaseException"))


def calls(path: Path, names: set[str]) -> list[str]:
    """Where a function or method is called by one of `names`: `datetime.now()`, `urandom(16)`."""
    made = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
    return [f"{name_of(path)}:{node.lineno} {ast.unparse(node)}" for node in made if is_call_of(node, names)]


def is_call_of(node: ast.Call, names: set[str]) -> bool:
    if isinstance(node.func, ast.Name):
        return node.func.id in names | BUILTINS
    return isinstance(node.func, ast.Attribute) and node.func.attr in names


def uses(path: Path, names: set[str]) -> list[str]:
    """Where one of `names` is read: `os.environ`, `from os import environ`."""
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and node.attr in names and ast.unparse(node.value) == "os":
            found.append(f"{name_of(path)}:{node.lineno} {ast.unparse(node)}")
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            found += [f"{name_of(path)}:{node.lineno} import {each.name}" for each in node.names if each.name in names]
    return found


def raises_again(handler: ast.ExceptHandler) -> bool:
    """Whether it only cleans up: its last statement is a bare `raise`."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_and_functions_are_short(path: Path) -> None:
    """A module has at most 400 lines and a function at most 70: what is longer has two purposes."""
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= (CORE_MODULE_LINES_MAX if path in CORE else MODULE_LINES_MAX)
    assert [f"{each.name}: {lines_of(each)}" for each in functions(path) if lines_of(each) > FUNCTION_LINES_MAX] == []


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_the_core_reads_no_clock_draws_no_entropy_and_opens_nothing(path: Path) -> None:
    """What the import contract cannot see: builtins, and calls on types that the core may use."""
    assert calls(path, IMPURE) == []


def test_only_settings_reads_the_environment() -> None:
    """Everything else is handed what it needs."""
    others = [path for path in MODULES if not path.is_relative_to(PACKAGE / "settings")]
    assert [use for path in others for use in uses(path, ENVIRONMENT)] == []


def test_nothing_catches_all_without_a_reason() -> None:
    """`except Exception` stands only where the list says why, and the list names nothing that is not there."""
    assert {each for path in MODULES for each in catches_all(path)} == set(CATCHES_ALL)


@pytest.mark.parametrize("handler", ["except:", "except Exception:", "except (ValueError, BaseException) as error:"])
def test_a_broad_except_is_seen(handler: str) -> None:
    """The check above sees every way to write one."""
    found = next(
        node for node in ast.walk(ast.parse(f"try:\n    pass\n{handler}\n    pass\n")) if isinstance(node, ast.ExceptHandler)
    )
    assert is_broad(found.type)
