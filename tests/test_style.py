"""What of the style a script can see: how many arguments are typed `Any`, and that figures draw by `dopt.plot` alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

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


# -- figures draw by dopt.plot alone ---------------------------------------------------------------------------------

DRAWING = {
    *(
        "plot",
        "semilogx",
        "semilogy",
        "loglog",
        "step",
        "scatter",
        "errorbar",
        "hist",
        "bar",
        "barh",
        "stem",
        "boxplot",
    ),
    *("fill_between", "fill", "imshow", "matshow", "pcolor", "pcolormesh", "contour", "contourf", "colorbar", "quiver"),
    *("axhline", "axvline", "axhspan", "axvspan", "hlines", "vlines", "text", "annotate", "legend", "table", "stairs"),
    *("add_patch", "add_line", "add_collection", "add_artist"),
}
ROOM = ("strokes", "gantt")  # of dopt.plot


def drawn_directly(text: str) -> list[str]:
    """What of a file draws by matplotlib itself: its imports of it, and calls of a panel's methods."""
    found = []
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import(names=names) if any(name.name.startswith("matplotlib") for name in names):
                found.append(ast.unparse(node))
            case ast.ImportFrom(module=str(module)) if module.startswith("matplotlib"):
                found.append(ast.unparse(node))
            case ast.Call(func=ast.Attribute(value=of, attr=name)) if name in DRAWING and ast.unparse(of) not in ROOM:
                found.append(ast.unparse(node.func))
    return found


def test_what_draws_by_itself_is_found() -> None:
    text = "import matplotlib.pyplot as plt\nfrom matplotlib import cm\nleft.plot(x)\naxes[0].text(1)\nstrokes.path(left)\ngantt.legend(left)"
    assert drawn_directly(text) == [
        "import matplotlib.pyplot as plt",
        "from matplotlib import cm",
        "left.plot",
        "axes[0].text",
    ]


@pytest.mark.parametrize(
    "file", sorted((Path(__file__).parents[1] / "paper_figs").glob("*.py")), ids=lambda file: file.stem
)
def test_a_figure_draws_by_dopt_plot_alone(file: Path) -> None:
    assert drawn_directly(file.read_text()) == []
