"""Pictures: what is drawn is what the tables say, no two names look alike, and the same picture is the same file."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

import dopt
import dopt.plot
from dopt import InputError, Results
from dopt.algorithms import ALGORITHMS
from dopt.cli import main
from dopt.plot import kind, style
from dopt.plot.asked import ask
from dopt.plot.kinds.profile import _over_best
from dopt.plot.picture import picture, usual
from dopt.plot.seeds import aligned
from dopt.sweeps.cells import scores, tuned
from dopt.topology import TOPOLOGIES

STORE = Path(__file__).parent / "data" / "stores" / "format-4"  # 44 runs: methods, topologies, weights, delays
GOSSIP = "algorithm=gossip_sgd,weights=metropolis"
CONTENT: dict[str, Any] = {
    "name": "clocked",
    "metric": {"name": "loss", "goal": "minimize", "target": 0.5},
    "parameters": {
        "algorithm": {"values": ["allreduce_sgd", "async_sgd"]},
        "workers": {"value": 4},
        "problem": {"value": "quadratic"},
        "problem.dim": {"value": 4},
        "cluster": {"value": "exponential"},
        "learning_rate": {"values": [0.05, 0.2]},
        "seed": {"values": [0, 1]},
        "seconds": {"value": 20},
        "metrics": {"value": ["loss"]},
    },
}
CLOCKED = ("timeline", "staleness")  # kinds that need a cluster


@pytest.fixture(scope="module")
def sound() -> Results:
    return dopt.load(STORE)


@pytest.fixture(scope="module")
def clocked(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Two methods on a random cluster, with a target that some reach."""
    return dopt.sweep(CONTENT, results=tmp_path_factory.mktemp("clocked"))


def of_kind(name: str, sound: Results, clocked: Results) -> Any:
    return (clocked if name in CLOCKED else sound).plot(name)


# -- looks ---------------------------------------------------------------------------------------------------------------

NAMES = [*ALGORITHMS, *TOPOLOGIES, *(f"my_method_{i}" for i in range(60))]


def test_of_all_methods_topologies_and_own_names_at_once_no_two_look_alike() -> None:
    looks = [tuple(map(str, look.values())) for look in style.looks(NAMES).values()]
    assert len(looks) == len(NAMES)
    assert len(set(looks)) == len(looks)


def test_methods_of_one_colour_differ_in_dashes_and_in_their_marker() -> None:
    for a, b in itertools.combinations(style.looks(list(ALGORITHMS)).values(), 2):
        same = {name for name in a if str(a[name]) == str(b[name])}
        assert "color" not in same or same == {"color"}


def test_seven_names_of_ones_own_have_seven_colours() -> None:
    names = [f"mine_{i}" for i in range(len(style.COLOURS))]
    assert {look["color"] for look in style.looks(names).values()} == set(style.COLOURS)


def test_looks_depend_on_which_names_there_are_and_not_on_their_order() -> None:
    assert style.looks(NAMES) == {name: style.looks(NAMES[::-1])[name] for name in NAMES}
    few = style.looks(["async_sgd", "mine"])
    assert few["async_sgd"] == style.looks(NAMES)["async_sgd"]


# -- what is drawn -------------------------------------------------------------------------------------------------------


def drawn(axes: Axes) -> dict[str, np.ndarray]:
    """Label -> [2, points] of each curve that has one."""
    lines = {str(line.get_label()): line for line in axes.lines}
    return {
        name: np.array([line.get_xdata(), line.get_ydata()], float)
        for name, line in lines.items()
        if name[:1] not in ("_", "")
    }


def test_a_curve_is_the_median_of_the_seeds_at_the_best_rate(sound: Results) -> None:
    (axes,) = sound.plot("curves", by="delay", where=GOSSIP + ",topology=ring").axes
    part = sound.where(GOSSIP + ",topology=ring")
    for cell in tuned(part, ["delay"]).to_dict("records"):
        own = part.history[part.history["id"].isin(cell["ids"].split())]
        medians = own.groupby("step")["loss"].median()
        np.testing.assert_allclose(drawn(axes)[str(cell["delay"])], [medians.index, medians], rtol=1e-12)


def test_of_a_method_and_one_more_parameter_each_value_of_it_is_a_panel(clocked: Results, sound: Results) -> None:
    methods = sound.where("algorithm!=gossip_sgd")
    figure = methods.plot()
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["delay 0", "delay 2"]
    assert set(drawn(figure.axes[0])) <= {"allreduce_sgd", "delayed_sgd"}
    (only,) = clocked.plot().axes
    assert set(drawn(only)) == {"allreduce_sgd", "async_sgd"}


def test_of_more_parameters_each_has_a_panel_whose_curves_are_at_the_best_of_the_others(sound: Results) -> None:
    figure = sound.plot("curves")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["algorithm", "topology", "weights", "delay"]
    best = tuned(sound, ["algorithm"], over=["topology", "weights", "delay", "learning_rate"]).set_index("algorithm")
    ends = {name: curve[1, -1] for name, curve in drawn(figure.axes[0]).items()}
    assert ends == pytest.approx(best["final"].to_dict())


def test_a_metric_that_is_to_grow_has_the_band_on_the_right_side(sound: Results) -> None:
    up = replace(sound, metric={"name": "loss", "goal": "maximize"})
    rows = up.plot("curves", by="algorithm").rows
    assert (rows["low"] <= rows["median"]).all()
    assert (rows["median"] <= rows["high"]).all()


def test_a_heatmap_shows_the_target_s_cost_of_each_cell(sound: Results) -> None:
    part = sound.where(GOSSIP)
    axes = part.plot("heatmap").axes[0]
    cells = tuned(part).pivot(index="topology", columns="delay", values="to_target").loc[["ring", "star"]]
    shown = axes.images[0].get_array()
    np.testing.assert_array_equal(np.ma.filled(shown, np.inf), cells.to_numpy(float))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ring", "star"]
    assert len(axes.texts) == cells.size


def test_a_bar_is_what_its_cell_costs_and_its_line_goes_from_quartile_to_quartile(sound: Results) -> None:
    part = sound.where(GOSSIP)
    (axes,) = part.plot("cells").axes
    cells = tuned(part)
    reached = cells[np.isfinite(cells["to_target"])]
    assert [patch.get_width() for patch in axes.patches] == reached["to_target"].tolist()
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        f"{cell.topology}, {cell.delay}" for cell in cells.itertuples()
    ]
    inside = cells[np.isfinite(cells["high"])]
    ends = [tuple(line.get_xdata()) for line in axes.lines]
    assert set(zip(inside["low"], inside["high"], strict=True)) <= set(ends)
    assert len(axes.texts) == len(cells) - len(reached)


def test_where_no_cell_has_a_target_bars_show_where_runs_end(sound: Results) -> None:
    free = replace(sound.where(GOSSIP), metric={"name": "loss", "goal": "minimize"})
    (axes,) = free.plot("cells").axes
    assert axes.get_xlabel() == "final loss"
    np.testing.assert_allclose([patch.get_width() for patch in axes.patches], tuned(free)["final"])


def test_on_the_front_are_the_cells_that_none_beats_in_both(sound: Results) -> None:
    rows = sound.plot("pareto").rows
    for row in rows.itertuples():
        worse = (rows["step"] <= row.step) & (rows["bytes_sent"] <= row.bytes_sent)
        worse &= (rows["step"] < row.step) | (rows["bytes_sent"] < row.bytes_sent)
        assert row.front == (not worse.any())
    ends = scores(sound)
    reach = ends.groupby(["algorithm", "topology", "weights", "delay", "learning_rate"], dropna=False)["to_target"]
    assert len(rows) == np.isfinite(reach.apply(lambda cost: cost.fillna(np.inf).median())).sum()


def test_a_profile_is_the_share_of_cells_within_a_factor_of_the_best(sound: Results) -> None:
    part = sound.where("algorithm=gossip_sgd")
    costs = tuned(part).pivot_table(index=["weights", "delay"], columns="topology", values="to_target", dropna=False)
    least = costs.min(axis=1)
    rows = part.plot("profile", by="topology").rows
    for row in rows.itertuples():
        within = (costs[row.topology] <= row.factor * least * (1 + 1e-12)) & np.isfinite(costs[row.topology])
        assert row.share == within.mean()
    assert (rows["cells"] == len(costs)).all()


def test_who_does_not_read_a_parameter_takes_part_in_all_of_its_cells(sound: Results) -> None:
    rows = sound.plot("profile").rows.set_index("algorithm")
    assert rows["cells"].unique().tolist() == [2 * 2 * 2]  # topologies, weights, delays
    assert set(rows.index) == set(sound.runs["algorithm"])


def test_sweeps_that_vary_different_things_stand_side_by_side(sound: Results, clocked: Results) -> None:
    for name in ("curves", "cells", "profile"):
        assert set(dopt.plot.picture([clocked, sound], name).rows.get("sweep", ["clocked", "first"])) == {
            "clocked",
            "first",
        }
    assert len(dopt.plot.picture([clocked, sound], "timeline", by="topology").axes) == 1
    other = replace(sound, runs=sound.runs.drop(columns="final.loss"), name="other")
    with pytest.raises(InputError, match="y: every sweep must have recorded it, got 'loss'"):
        dopt.plot.curves([sound, other])


def test_sweeps_are_compared_in_the_same_cells(sound: Results) -> None:
    part = sound.where("algorithm=gossip_sgd")
    turned = replace(part, runs=part.runs.iloc[::-1].reset_index(drop=True), name="second")  # cells in another order
    rows = dopt.plot.profile([part, turned], by="sweep").rows
    assert (rows["factor"] == 1).all()
    assert rows["share"].nunique() == 1


def test_whoever_pays_where_the_best_pays_nothing_is_within_no_factor() -> None:
    found = _over_best(pd.DataFrame({"a": [0.0, 3.0, np.inf], "b": [2.0, 6.0, np.inf], "c": [np.inf] * 3}))
    assert found.to_numpy().tolist() == [[1, 1, np.inf], [np.inf, 3, np.inf], [np.inf] * 3]


@pytest.mark.parametrize("name", ["curves", "cells", "heatmap", "pareto", "profile"])
def test_a_parameter_of_lists_is_one_like_others(name: str, sound: Results) -> None:
    part = sound.where("algorithm=gossip_sgd,weights=metropolis")
    lists = [(1, 2) if name == "ring" else (3, 4, 5) for name in part.runs["topology"]]
    changed = replace(part, runs=part.runs.assign(**{"cluster.scale": lists}).drop(columns="topology"))
    changed = replace(changed, varied=("cluster.scale", "delay", "learning_rate", "seed"))
    figure = changed.plot(name, by=["cluster.scale", "delay"])
    figure.draw_without_rendering()
    assert len(figure.rows) > 0


def test_a_timeline_fills_the_time_of_all_workers(clocked: Results) -> None:
    figure = clocked.plot("timeline")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["allreduce_sgd", "async_sgd"]
    end = figure.axes[0].get_xlim()[1]
    for _, own in figure.rows.groupby("algorithm"):
        assert (own["end"] - own["begin"]).sum() == pytest.approx(4 * end)
        assert own["end"].max() <= end


def test_shares_of_staleness_add_up_and_who_waits_for_all_has_none(clocked: Results) -> None:
    rows = clocked.plot("staleness").rows
    assert rows.groupby("algorithm")["share"].sum().to_dict() == pytest.approx({"allreduce_sgd": 1, "async_sgd": 1})
    means = rows.groupby("algorithm")["mean"].first()
    assert means["allreduce_sgd"] == 0
    assert means["async_sgd"] > 1


def test_seeds_that_count_seconds_differently_are_compared_at_the_same_ones() -> None:
    rows = pd.DataFrame({"id": ["a"] * 3 + ["b"] * 2, "time": [0.0, 1, 3, 0, 2], "loss": [5.0, 4, 1, 7, 6]})
    found = aligned(rows, "time", "loss").pivot(index="time", columns="id", values="loss")
    assert found.index.tolist() == [0, 1, 2]  # as far as both go
    assert found["a"].tolist() == [5, 4, 4]
    assert found["b"].tolist() == [7, 7, 6]


# -- several sweeps, and what was measured -------------------------------------------------------------------------------


def test_sweeps_are_side_by_side_or_are_what_is_compared(sound: Results) -> None:
    both = [sound.where(GOSSIP + ",delay=0"), replace(sound.where(GOSSIP + ",delay=0"), name="second")]
    figure = dopt.plot.curves(both)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["first", "second"]
    assert figure.rows["sweep"].unique().tolist() == ["first", "second"]
    (one,) = dopt.plot.curves(both, by="sweep").axes
    assert set(drawn(one)) == {"first", "second"}
    assert len(dopt.plot.cells(both).axes) == 2
    assert set(dopt.plot.profile(both, by="sweep").rows["sweep"]) == {"first", "second"}


def test_what_was_measured_is_laid_over_under_a_name_of_its_own(sound: Results, tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("step,loss,label\n0,2.5,gossip_sgd\n20,1.5,gossip_sgd\n0,2,other\n20,1,other\n")
    (axes,) = sound.plot(by="algorithm", add=file).axes
    curves = drawn(axes)
    assert curves["gossip_sgd (measured)"].tolist() == [[0, 20], [2.5, 1.5]]
    assert curves["other (measured)"].tolist() == [[0, 20], [2, 1]]
    looks = [
        (line.get_color(), str(line.get_linestyle()), line.get_marker())
        for line in axes.lines
        if str(line.get_label()) in curves
    ]
    assert len(set(looks)) == len(curves) == 5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "no file"),
        ("", "is not CSV"),
        ("step,loss\n", "the table has no rows"),
        ("step,los\n0,1\n", "no column 'loss', which this picture draws; did you mean 'los'?"),
        ("step,loss\n0,1\n1,low\n", "loss must be finite numbers, got 'low' in row 2"),
        ("step,loss\n0,1\n1,inf\n", "loss must be finite numbers, got 'inf' in row 2"),
        ("step,loss\n0,1\n,2\n", "step must be finite numbers, got '' in row 2"),
        ('step,loss\n"0,1\n', "is not CSV"),
        ("step,loss\n0,1,2,3\n0\n", "is not CSV"),
        ("step,loss\n0,1\x00\n", "loss must be finite numbers"),
        ("step,loss,label\n" + "".join(f"0,1,{i}\n" for i in range(21)), "has 21 labels"),
    ],
)
def test_a_measured_curve_that_cannot_be_read_is_refused_in_one_line(
    text: str | None, says: str, sound: Results, tmp_path: Path
) -> None:
    file = tmp_path / "mine.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError, match=r"^add: ") as caught:
        sound.plot(add=file)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


# -- which kind, and what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "by", "target", "expected"),
    [
        ("", (), 0.5, "cells"),  # four parameters
        ("", (), None, "curves"),
        (GOSSIP, (), 0.5, "heatmap"),  # topology and delay
        (GOSSIP, (), None, "heatmap"),
        ("algorithm!=gossip_sgd", (), 0.5, "curves"),  # method and delay
        (GOSSIP + ",delay=0", (), 0.5, "curves"),  # topology
        (GOSSIP + ",delay=0,topology=ring", (), 0.5, "curves"),
        ("", ("topology", "weights"), 0.5, "heatmap"),
        ("", ("algorithm", "delay"), 0.5, "curves"),
        ("", ("delay",), 0.5, "curves"),
    ],
)
def test_the_kind_follows_from_what_differs(
    where: str, by: tuple[str, ...], target: float | None, expected: str, sound: Results
) -> None:
    results = replace(sound, metric={"name": "loss", "goal": "minimize", "target": target})
    assert usual(ask(results, where=where, by=by)) == expected


@pytest.mark.parametrize(
    ("kind", "given", "says"),
    [
        ("curve", {}, "kind: unknown name 'curve'; did you mean 'curves'?"),
        (None, {"x": "steps"}, "x: unknown name 'steps'; did you mean 'step'?"),
        (None, {"y": "los"}, "y: the sweep must have recorded it, got 'los'; did you mean 'loss'?"),
        (
            None,
            {"by": "topologi"},
            "by: 'topologi' is not a parameter that differs among these runs; did you mean 'topology'?",
        ),
        (None, {"by": "workers"}, "by: 'workers' is not a parameter that differs"),
        (None, {"by": "seed"}, "by: 'seed' is not a parameter that differs"),
        (None, {"by": ["delay", "delay"]}, "by: takes one name or two different ones"),
        (None, {"by": ["delay", "topology", "weights"]}, "by: takes one name or two different ones"),
        (None, {"size": "slides"}, "size: unknown name 'slides'; did you mean 'slide'?"),
        (None, {"where": "delay=7"}, "plot: there is no run to draw"),
        (None, {"where": "dela=7"}, "where: no column 'dela'"),
        ("heatmap", {"where": GOSSIP + ",delay=0"}, "plot: a heatmap needs two parameters that differ, got topology"),
        ("timeline", {}, "plot: no run has a cluster"),
        ("staleness", {}, "plot: no run has a cluster"),
        ("timeline", {"y": "loss"}, "y: this kind of picture does not read it"),
        ("pareto", {"y": "loss"}, "y: this kind of picture does not read it"),
        ("heatmap", {"add": pd.DataFrame({"step": [0], "loss": [1]})}, "add: this kind of picture does not read it"),
        ("pareto", {"x": "bytes_sent"}, "x: the other axis of this picture is bytes"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(
    kind: str | None, given: dict[str, Any], says: str, sound: Results
) -> None:
    with pytest.raises(InputError) as caught:
        sound.plot(kind, **given)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["pareto", "profile"])
def test_without_a_target_nothing_is_reached(kind: str, sound: Results) -> None:
    with pytest.raises(InputError, match="loss has no target; give the sweep file's metric one"):
        replace(sound, metric={"name": "loss"}).plot(kind)


def test_a_table_of_best_cells_is_the_tuned_one(sound: Results) -> None:
    pd.testing.assert_frame_equal(sound.tuned(), tuned(sound))
    pd.testing.assert_frame_equal(
        sound.tuned(over=["delay", "learning_rate"], by=["topology"]),
        tuned(sound, ["topology"], over=["delay", "learning_rate"]),
    )
    with pytest.raises(InputError, match="tuned: 'rate' is not a parameter that varies"):
        sound.tuned(over="rate")


# -- files, and the command ----------------------------------------------------------------------------------------------


def test_every_kind_is_a_file_a_function_and_a_choice() -> None:
    assert set(kind.names()) == set(dopt.plot.__all__) - {"picture"}
    for name in kind.names():
        assert getattr(dopt.plot, name) is kind.find(name)
        assert kind.find(name).reads <= {"x", "y", "by", "add"}


@pytest.mark.parametrize("name", kind.names())
def test_names_are_outside_of_all_panels(name: str, sound: Results, clocked: Results) -> None:
    figure = of_kind(name, sound, clocked)
    figure.draw_without_rendering()
    panels = [axes.get_window_extent() for axes in figure.axes]
    keys = [*figure.legends, *filter(None, (axes.get_legend() for axes in figure.axes))]
    for key in keys:
        box = key.get_window_extent()
        assert not any(box.overlaps(panel) for panel in panels)
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1


@pytest.mark.parametrize("ending", [".svg", ".pdf"])
def test_the_same_picture_is_the_same_file_with_its_letters_in_it(ending: str, sound: Results, tmp_path: Path) -> None:
    files = [sound.plot("cells").save(tmp_path / f"{i}{ending}").read_bytes() for i in range(2)]
    assert files[0] == files[1]
    text = files[0].decode("latin-1")
    if ending == ".svg":
        assert "<text" not in text  # letters are outlines
        assert "http://www.w3.org/2000/svg" in text
        assert "<dc:date>" not in text
    else:
        assert "/FontFile2" in text  # embedded
        assert "/Type3" not in text


def said(capsys: pytest.CaptureFixture, *words: object, code: int = 0) -> tuple[str, str]:
    """(stdout, stderr) of `dopt WORDS`."""
    assert main([*map(str, words)]) == code
    return capsys.readouterr()


def test_a_file_of_what_is_drawn_is_its_rows(capsys: pytest.CaptureFixture, sound: Results, tmp_path: Path) -> None:
    out, err = said(capsys, "plot", STORE, "--kind", "cells", "--where", GOSSIP, "-o", tmp_path / "x.csv")
    assert (out, err) == (f"wrote {tmp_path / 'x.csv'}\n", "")
    rows = sound.plot("cells", where=GOSSIP).rows
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "x.csv", keep_default_na=False), rows.assign(panel=""), check_dtype=False, rtol=1e-8
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-o", "x.jpg"], "dopt: out: a picture's name must end in .png, .pdf, .svg, .csv, got 'x.jpg'"),
        (["-o", "x"], "dopt: out: a picture's name must end in"),
        (["--kind", "pie"], "dopt: argument --kind: "),
        (["--by", ","], "dopt: by: '' is not a name"),
        (["--where", "delay"], "dopt: where: 'delay' is not a condition"),
        (["--add", "no.csv"], "dopt: add: no file 'no.csv'"),
    ],
)
def test_the_command_refuses_in_one_line(words: list[str], says: str, capsys: pytest.CaptureFixture) -> None:
    out, err = said(capsys, "plot", STORE, *words, code=2)
    assert out == ""
    assert err.startswith(says)
    assert err.count("\n") == 1


def test_a_picture_that_cannot_be_written_is_the_machine_s_refusal(
    capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    _, err = said(capsys, "plot", STORE, "--kind", "cells", "-o", tmp_path / "no" / "x.png", code=1)
    assert err.startswith("dopt: out: cannot write")
    assert err.count("\n") == 1


def test_a_name_is_never_taken_for_mathematics_and_stays_short() -> None:
    assert style.said("a$b$") == r"a\$b\$"
    assert style.said("x" * 99) == "x" * 39 + "…"
    assert style.said("a\nb\x1b") == r"a\nb\x1b"
    assert [style.said(value) for value in (0.1, 3, float("nan"), True)] == ["0.1", "3", "none", "True"]


def test_a_sweep_ends_with_its_picture_and_says_how_to_make_others(
    capsys: pytest.CaptureFixture, clocked: Results, tmp_path: Path
) -> None:
    out, err = said(capsys, *again(clocked, tmp_path))
    assert "nothing to run" in out
    assert f"  {clocked.folder / 'plot.png'}\n" in out
    assert out.splitlines()[-1].startswith(f"other pictures: dopt plot {clocked.folder} --kind ")
    assert err == ""
    picture(clocked).save(tmp_path / "same.png")
    assert (clocked.folder / "plot.png").read_bytes() == (tmp_path / "same.png").read_bytes()


def test_who_wants_no_picture_waits_for_none(
    capsys: pytest.CaptureFixture, clocked: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dopt.plot, "picture", None)
    out, err = said(capsys, *again(clocked, tmp_path), "--no-plot")
    assert "plot.png" not in out
    assert err == ""


@pytest.mark.parametrize("error", [InputError("by: no"), RuntimeError("a\nb"), ImportError("no matplotlib")])
def test_no_picture_fails_a_sweep(
    error: Exception, capsys: pytest.CaptureFixture, clocked: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(dopt.plot, "picture", fails)
    out, err = said(capsys, *again(clocked, tmp_path))
    assert err == f"plot: no picture ({' '.join(str(error).split())})\n"
    assert "plot.png" not in out
    assert "other pictures" not in out


def again(clocked: Results, tmp_path: Path) -> list[str]:
    """The words that ask for the finished sweep once more."""
    file = tmp_path / "clocked.yaml"
    file.write_text(json.dumps(CONTENT))
    return ["sweep", str(file), "--results", str(clocked.folder), "--wandb", "off"]


# -- where little is there -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["curves", "cells", "heatmap"])
def test_where_every_run_diverged_a_picture_says_so(name: str, sound: Results) -> None:
    part = sound.where(GOSSIP)
    lost = replace(
        part,
        runs=part.runs.assign(**{"final.loss": np.nan}),
        records=part.history.assign(loss=lambda rows: rows["loss"].where(rows["step"] == 0)),
    )
    figure = lost.plot(name)
    figure.draw_without_rendering()
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    if name == "cells":
        assert set(texts) == {"diverged "}
    if name == "heatmap":
        assert all(text.startswith("–\n") for text in texts)
    if name == "curves":
        assert all(len(curve[0]) == 1 for axes in figure.axes for curve in drawn(axes).values())


def test_a_curve_that_leaves_for_good_does_not_hide_the_others(sound: Results) -> None:
    part = sound.where(GOSSIP + ",delay=0,topology=ring")
    rates = part.runs.set_index("id")["learning_rate"]
    grown = part.history.assign(
        loss=lambda rows: rows["loss"].where((rows["id"].map(rates) < 2) | (rows["step"] == 0), 1e30)
    )
    (axes,) = replace(part, records=grown).plot("curves", by="learning_rate").axes
    start = grown["loss"][grown["step"] == 0].max()
    assert axes.get_ylim()[1] == pytest.approx(10 * start, rel=0.2)


def test_panels_of_one_scale_show_all_of_each(sound: Results) -> None:
    figure = sound.plot("curves", by="delay,algorithm")
    low, high = figure.axes[0].get_ylim()
    curves = [curve for axes in figure.axes for curve in drawn(axes).values()]
    assert len(figure.axes) == 3
    assert low < min(curve[1].min() for curve in curves)
    assert high > max(curve[1].max() for curve in curves)


def test_a_single_run_is_a_curve(sound: Results) -> None:
    part = sound.where(GOSSIP + ",delay=0,topology=ring,learning_rate=2,seed=0")
    assert len(part.runs) == 1
    (axes,) = part.plot().axes
    np.testing.assert_array_equal(drawn(axes)["gossip_sgd"][1], part.history["loss"])
    assert "rates" not in str(part.plot().get_suptitle())


def test_of_damaged_records_the_others_are_drawn(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(STORE, tmp_path / "first"))
    damaged = sorted(folder.glob("slabs/*/history.parquet"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-9])
    out, err = said(capsys, "plot", folder, "--kind", "curves", "--by", "algorithm", "-o", tmp_path / "x.csv")
    assert out == f"wrote {tmp_path / 'x.csv'}\n"
    assert err.startswith("results: ")
    assert err.endswith("left out\n")
    drawn = pd.read_csv(tmp_path / "x.csv")
    assert 0 < drawn["name"].nunique() < 3
