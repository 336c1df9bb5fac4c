"""What of the style a script can see: how many arguments are typed `Any`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import dopt

ANYTHING = 0.08  # of the annotated arguments, those whose annotation names `Any`: lower it, never raise it


def annotations(text: str) -> Iterator[ast.expr]:
    """The annotation of each argument that has one."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            each = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
            yield from (one.annotation for one in each if one is not None and one.annotation is not None)


def names_any(annotation: ast.expr) -> bool:
    """Whether it names `Any`, alone or within: `Any`, `Mapping[str, Any]`, `"Any"`."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    inner = ast.walk(annotation)
    return any("Any" in (getattr(node, "id", None), getattr(node, "attr", None)) for node in inner)


def test_any_is_found_wherever_it_stands_in_an_annotation() -> None:
    text = 'def f(a: Any, /, b: Mapping[str, Any], *c: typing.Any, d: "Any | None", e: int, g: Anything, h, **k: str): pass'
    assert [names_any(one) for one in annotations(text)] == [True, True, True, False, False, True, False]
    assert [ast.unparse(one) for one in annotations(text) if names_any(one)][-1] == "typing.Any"


def test_few_arguments_are_typed_any() -> None:
    files = Path(dopt.__file__).parent.rglob("*.py")
    found = {str(file): [names_any(one) for one in annotations(file.read_text())] for file in files}
    every = [named for each in found.values() for named in each]
    worst = sorted(found, key=lambda name: -sum(found[name]))[:5]
    share = sum(every) / len(every)
    assert share <= ANYTHING, f"{share:.3f} of {len(every)} annotated arguments name Any; most in {', '.join(worst)}"
