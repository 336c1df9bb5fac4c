"""`dopt results`, and what lies below it: records that are read when somebody asks, tables as files, and what is not mixed silently."""

from __future__ import annotations

import csv
import io
import json
import math
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from small import small_sweep

import dopt
from dopt import Results
from dopt.cli import main, results, sweep
from dopt.report import formats
from dopt.sweeps import columns, compact, plan, seal
from dopt.sweeps.cells import scores, tuned
from dopt.sweeps.records import RecordsError
from dopt.sweeps.results import notes_of
from dopt.sweeps.store import Store
from dopt.types import InputError, MachineError

STORE = Path(__file__).parent / "data" / "stores" / "format-4"  # 44 runs of three methods in four slabs
FEW = "algorithm=gossip_sgd,weights=metropolis,learning_rate=2,seed=0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished folder to play with."""
    return Path(shutil.copytree(STORE, tmp_path / "first"))


@pytest.fixture(scope="module")
def sound() -> Results:
    return dopt.load(STORE)


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """A sealed file with a change, sealed again."""
    content = json.loads(path.read_text())
    del content[seal.SUM]
    change(content)
    path.write_bytes(seal.seal(content))


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def said(capsys: pytest.CaptureFixture, *words: object, code: int = 0) -> tuple[str, str]:
    """(stdout, stderr) of `dopt results WORDS`."""
    assert main(["results", *map(str, words)]) == code
    return capsys.readouterr()


# -- which rows and columns -------------------------------------------------------------------------------------------


def test_a_row_for_each_run_has_what_is_varied_and_what_came_of_it(
    capsys: pytest.CaptureFixture, sound: Results
) -> None:
    out, err = said(capsys, STORE, "--format", "csv")
    assert err == ""
    known = scores(sound)[[*sound.varied, "final", "to_target", "diverged", "id"]]
    assert_frame_equal(pd.read_csv(io.StringIO(out)), known, check_dtype=False, check_exact=True)


@pytest.mark.parametrize(
    "text", ["topology=ring,delay>1", "weights!=metropolis", "final.loss<=0.6", "id=4e884afd5dd786be"]
)
def test_the_command_chooses_what_python_chooses(text: str, capsys: pytest.CaptureFixture, sound: Results) -> None:
    out, _ = said(capsys, STORE, "--where", text, "--columns", "id", "--format", "csv")
    chosen = sound.where(text)
    assert out.split() == ["id", *chosen.runs["id"]]
    assert 0 < len(chosen.runs) < len(sound.runs)
    known = sound.history[sound.history["id"].isin(chosen.runs["id"])].reset_index(drop=True)
    assert_frame_equal(chosen.history, known[list(chosen.history)], check_exact=True, check_dtype=False)
    assert known.drop(columns=list(chosen.history)).isna().all(axis=None)  # what only others measured


def test_columns_come_in_the_order_in_which_they_are_asked_for(capsys: pytest.CaptureFixture) -> None:
    out, _ = said(capsys, STORE, "--columns", "final.loss, seed,to_target", "--where", FEW, "--format", "csv")
    assert out.splitlines()[0] == "final.loss,seed,to_target"


def test_the_best_of_each_cell_is_the_tuned_one(capsys: pytest.CaptureFixture, sound: Results) -> None:
    out, _ = said(
        capsys,
        STORE,
        "--best-over",
        "learning_rate",
        "--columns",
        "algorithm,final,learning_rate,ids",
        "--format",
        "csv",
    )
    known = tuned(sound)[["algorithm", "final", "learning_rate", "ids"]]
    assert_frame_equal(pd.read_csv(io.StringIO(out)), known, check_exact=True, check_dtype=False)


def test_several_parameters_are_tuned_together(sound: Results) -> None:
    found = tuned(sound, over=["weights", "learning_rate"]).set_index(["algorithm", "topology", "delay"])
    runs = scores(sound).fillna({"topology": "none", "to_target": math.inf})
    for (algorithm, topology, delay), row in found.iterrows():
        cell = runs[(runs["algorithm"] == algorithm) & (runs["delay"] == delay)]
        cell = cell[cell["topology"] == (topology if isinstance(topology, str) else "none")]
        tried = cell.groupby(["weights", "learning_rate"], dropna=False)[["to_target", "final"]].median()
        assert (row["to_target"], row["final"]) == min(tried.itertuples(index=False, name=None))
    assert found["edge"].all()  # of two rates each is one; a word is at no edge
    assert not tuned(sound, over=["weights"])["edge"].any()
    assert set(tuned(sound, over=["seed"])["seeds"]) == {1}


def test_parts_of_a_sweep_in_several_folders_are_one_table(
    capsys: pytest.CaptureFixture, folder: Path, tmp_path: Path, sound: Results
) -> None:
    other = Path(shutil.copytree(STORE, tmp_path / "second"))
    shutil.rmtree(folder / "slabs" / "group0-slab000")
    shutil.rmtree(other / "slabs" / "group2-slab000")
    out, err = said(capsys, folder, other, folder, "--best-over", "learning_rate", "--format", "csv")
    known, _ = said(capsys, STORE, "--best-over", "learning_rate", "--format", "csv")
    assert sorted(out.splitlines()) == sorted(known.splitlines())
    assert [line.split(" of ")[0] for line in err.splitlines()] == ["results: 4 runs", "results: 16 runs"]
    out, _ = said(capsys, folder, other, "--format", "csv")
    assert len(out.splitlines()) == 1 + len(sound.runs)


def test_rows_of_several_sweeps_say_whose_they_are_and_a_run_is_one_row(
    capsys: pytest.CaptureFixture, folder: Path
) -> None:
    edited(folder / "plan.json", lambda content: content.update(name="second"))
    both = (STORE, folder, "--format", "csv")
    out, _ = said(capsys, *both, "--where", FEW)
    assert out.startswith("sweep,algorithm,")
    assert {row.split(",")[0] for row in out.splitlines()[1:]} == {"first"}
    out, _ = said(capsys, *both, "--where", f"{FEW},sweep=second")
    assert {row.split(",")[0] for row in out.splitlines()[1:]} == {"second"}
    out, _ = said(capsys, *both, "--best-over", "learning_rate", "--columns", "sweep")
    assert out.split() == ["sweep", *["first"] * 11, *["second"] * 11]


def test_where_nothing_is_chosen_the_table_is_empty(capsys: pytest.CaptureFixture) -> None:
    for words in ((), ("--best-over", "learning_rate")):
        out, err = said(capsys, STORE, "--where", "seed=7", "--format", "csv", *words)
        assert (out.count("\n"), err) == (1, "")
    assert said(capsys, STORE, "--where", "seed=7", "--format", "json") == ("[]\n", "")


# -- records, when they are asked for ---------------------------------------------------------------------------------


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The slabs whose records are read."""
    found: list[str] = []
    read = Store.read_records

    def noted(self: Store, name: str, *args: Any) -> pa.Table:
        found.append(name)
        return read(self, name, *args)

    monkeypatch.setattr(Store, "read_records", noted)
    return found


def test_records_are_read_of_the_slabs_that_are_asked_for_alone(reads: list[str], sound: Results) -> None:
    found = dopt.load(STORE)
    assert reads == []
    part = found.histories(where="algorithm=delayed_sgd", columns=["loss", "nothing"])
    assert len(reads) == 1
    known = sound.history[sound.history["id"].isin(sound.where("algorithm=delayed_sgd").runs["id"])]
    assert_frame_equal(part, known[["id", "loss"]].reset_index(drop=True), check_exact=True)
    assert len(found.history) == 3 * len(found.runs)
    assert found.history is found.history
    reads.clear()
    assert_frame_equal(
        found.histories(where="algorithm=delayed_sgd", columns=["loss", "nothing"]), part, check_exact=True
    )
    assert reads == []  # they are here


def test_the_command_reads_no_records_that_its_columns_do_not_need(
    reads: list[str], capsys: pytest.CaptureFixture
) -> None:
    said(capsys, STORE, "--columns", "id,final.loss")
    assert reads == []
    said(capsys, STORE, "--columns", "id,to_target", "--where", "algorithm=allreduce_sgd")
    assert len(reads) == 1


def test_a_table_of_fewer_runs_has_their_records(sound: Results) -> None:
    backwards = replace(sound, runs=sound.runs.iloc[::-7].reset_index(drop=True))
    assert backwards.history["id"].unique().tolist() == backwards.runs["id"].tolist()
    known = sound.history.set_index("id").loc[backwards.runs["id"]].reset_index()
    assert_frame_equal(backwards.history, known, check_exact=True)


def test_damaged_records_are_never_served(folder: Path, capsys: pytest.CaptureFixture, sound: Results) -> None:
    hurt = folder / "slabs" / "group1-slab000" / "history.parquet"
    flip_a_bit(hurt)
    found = dopt.load(folder)
    assert_frame_equal(found.runs, sound.runs, check_exact=True)  # which are whole
    for read in (lambda: found.history, lambda: found.histories(columns=["loss"]), lambda: tuned(found)):
        with pytest.raises(
            RecordsError, match=r"^results: damaged slab: .*history\.parquet is truncated or altered; .*checked"
        ):
            read()
    assert len(found.histories(where="algorithm=allreduce_sgd")) == 3 * 4  # of another slab
    left = found.checked()
    assert left.faults == (f"results: damaged slab: {hurt} is truncated or altered; left out",)
    assert left.missing == 44 - len(left.runs) == 8
    assert set(left.history["id"]) == set(left.runs["id"])
    out, err = said(capsys, folder, "--format", "csv")
    assert err == f"dopt: {left.faults[0]}\n".removeprefix("dopt: ")
    assert len(out.splitlines()) == 1 + len(left.runs)
    hurt.unlink()
    assert "is missing" in dopt.load(folder).faults[0]


# -- tables of many slabs in few files ---------------------------------------------------------------------------------


@pytest.fixture
def compacted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(compact, "MANY", 1)
    dopt.load(folder)
    return folder


def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    read = columns.read
    monkeypatch.setattr("dopt.sweeps.store.columns.read", lambda *args: found.append(1) or read(*args))
    return found


def test_what_was_decoded_once_is_kept(compacted: Path, monkeypatch: pytest.MonkeyPatch, sound: Results) -> None:
    parts = len(json.loads((compacted / "compact" / "index.json").read_text())["parts"])
    calls = decoded(monkeypatch)
    assert_frame_equal(dopt.load(compacted).runs, sound.runs, check_exact=True)
    assert len(calls) == parts  # and no slab's table


def test_of_a_slab_that_is_another_one_now_nothing_old_is_served(compacted: Path, sound: Results) -> None:
    flip_a_bit(compacted / "slabs" / "group1-slab000" / "runs.parquet")
    found = dopt.load(compacted)
    assert "damaged slab" in found.faults[0]
    assert found.missing == 8
    known = sound.where("algorithm!=delayed_sgd").runs[list(found.runs)]
    assert_frame_equal(found.runs, known, check_exact=True, check_dtype=False)


@pytest.mark.parametrize("damage", [flip_a_bit, Path.unlink, lambda path: path.write_bytes(b"{}")])
@pytest.mark.parametrize("name", ["index.json", "*.parquet"])
def test_damage_to_what_is_kept_counts_for_nothing(
    damage: Callable[[Path], object], name: str, compacted: Path, sound: Results
) -> None:
    damage(next((compacted / "compact").glob(name)))
    found = dopt.load(compacted)
    assert found.faults == ()
    assert_frame_equal(found.runs, sound.runs, check_exact=True)


def test_a_folder_that_cannot_be_written_is_read_all_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch, sound: Results
) -> None:
    def refuse(*_: object) -> None:
        raise MachineError("no space left")

    monkeypatch.setattr(compact, "MANY", 1)
    monkeypatch.setattr(compact, "write_file", refuse)
    assert_frame_equal(dopt.load(folder).runs, sound.runs, check_exact=True)


# -- what is not mixed silently -----------------------------------------------------------------------------------------


def test_what_the_runs_of_a_table_should_share_is_told(
    folder: Path, capsys: pytest.CaptureFixture, sound: Results
) -> None:
    assert sound.notes == ()

    def other(manifest: dict[str, Any]) -> None:
        manifest.update(engine=1, device="NVIDIA H100", versions={**manifest["versions"], "jax": "0.9.0", "numpy": "1"})

    old = json.loads((folder / "slabs" / "group1-slab000" / "manifest.json").read_text())
    edited(folder / "slabs" / "group1-slab000" / "manifest.json", other)
    found, versions = dopt.load(folder), old["versions"]
    assert found.notes == (
        f"results: the table mixes versions: jax {versions['jax']} (36 runs), 0.9.0 (8 runs); numpy {versions['numpy']} (36 runs), 1 (8 runs)",
        f"results: the table mixes engines: {old['engine']} (36 runs), 1 (8 runs)",
        f"results: the table mixes devices: {old['device']} (36 runs), NVIDIA H100 (8 runs)",
    )
    assert found.where("algorithm!=delayed_sgd").notes == ()
    _, err = said(capsys, folder, "--columns", "id")
    assert err.splitlines() == list(found.notes)
    _, err = said(capsys, folder, "--columns", "id", "--where", "algorithm=delayed_sgd")
    assert err == ""


def test_precisions_that_differ_are_told_unless_they_are_varied(sound: Results) -> None:
    double = replace(sound, runs=sound.runs.assign(precision="float64"))
    assert notes_of([sound, double]) == ("results: the table mixes precisions: float32 (44 runs), float64 (44 runs)",)
    assert notes_of([sound, replace(double, varied=("precision",))]) == ()


# -- as text, and as files ----------------------------------------------------------------------------------------------

CELLS = st.one_of(
    st.none(),
    st.integers(-(2**60), 2**60),
    st.floats(),
    st.text('aé,"\n|&', max_size=4),
    st.booleans(),
    st.tuples(st.integers()),
)
TABLES = st.integers(0, 6).flatmap(
    lambda n: st.fixed_dictionaries(
        {
            "mixed": st.lists(CELLS, min_size=n, max_size=n).map(lambda x: pd.Series(x, dtype=object)),
            "real": st.lists(st.floats(), min_size=n, max_size=n).map(lambda x: pd.Series(x, dtype="float64")),
            "whole": st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), min_size=n, max_size=n).map(
                lambda x: pd.Series(pd.array(x, "Int64"))
            ),
            "word": st.lists(st.text("ab, _%é\\'\"\n", min_size=1), min_size=n, max_size=n).map(
                lambda x: pd.Series(x, dtype="str")
            ),
        }
    ).map(pd.DataFrame)
)


@given(TABLES)
def test_a_table_comes_back_from_each_kind_of_file(table: pd.DataFrame) -> None:
    back = columns.frame(columns.read(pa.BufferReader(formats.parquet(table))))
    assert list(back) == list(table)
    for name in table:
        assert all(map(same, back[name], table[name])), name
    objects = json.loads(formats.as_json(table))
    for name in table:
        known = [None if isinstance(x, float) and not math.isfinite(x) else x for x in map(plain, table[name])]
        assert [tuple(x) if isinstance(x, list) else x for x in (row[name] for row in objects)] == known, name
    text = list(csv.DictReader(io.StringIO(formats.csv(table), newline="")))
    assert [row["word"] for row in text] == table["word"].tolist()
    assert [row["whole"] for row in text] == ["" if x is None else str(x) for x in map(plain, table["whole"])]
    assert [repr(float(row["real"] or "nan")) for row in text] == list(map(repr, table["real"].tolist()))


def plain(value: Any) -> Any:
    """What is missing as None, and a number as Python has it."""
    return None if formats.is_missing(value) else value.item() if isinstance(value, np.generic) else value


def same(one: Any, other: Any) -> bool:
    """Equal, and both truth values or none; beside what is missing a whole number may be read back as a real one."""
    one, other = plain(one), plain(other)
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def test_latex_is_a_table_for_a_paper(capsys: pytest.CaptureFixture) -> None:
    words = (STORE, "--format", "latex", "--best-over", "learning_rate", "--where", "weights=metropolis,delay=0")
    out, _ = said(capsys, *words)
    assert out.splitlines() == [
        r"% \usepackage{booktabs}",
        r"\begin{tabular}{lllrrrrrrrrl}",
        r"\toprule",
        r"algorithm & topology & weights & delay & learning\_rate & to\_target & low & high & final & seeds & diverged & edge \\",
        r"\midrule",
        r"gossip\_sgd & ring & metropolis & 0 & 2 & not reached & not reached & not reached & 0.6293 & 2 & 0 & True \\",
        r"gossip\_sgd & star & metropolis & 0 & 2 & 20 & 20 & 20 & 0.4804 & 2 & 0 & True \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_latex_shows_numbers_as_numbers_and_text_as_text() -> None:
    table = pd.DataFrame({"a_%": ["1e5", "x & y", r"\c{#}$^~"], "b": [1.5e-7, -2.25, math.nan]})
    head, _, *rows = formats.latex(table).splitlines()[3:-2]
    assert head == r"a\_\% & b \\"
    assert rows == [
        r"1e5 & $1.5 \cdot 10^{-7}$ \\",
        r"x \& y & $-2.25$ \\",
        r"\textbackslash{}c\{\#\}\$\textasciicircum{}\textasciitilde{} & - \\",
    ]


def test_a_table_for_readers_is_cut_and_says_so(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "MOST", 3)
    out, _ = said(capsys, STORE)
    assert len(out.splitlines()) == 1 + 3 + 1
    assert "41 more rows" in out
    assert "\x1b" not in out


@pytest.mark.parametrize("name", ["t.csv", "t.json", "t.tex", "t.parquet", "t.txt"])
def test_a_file_is_of_the_kind_that_its_ending_says(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out, err = said(capsys, STORE, "--where", FEW, "--out", tmp_path / name)
    assert (out, err) == (f"wrote {tmp_path / name}\n", "")
    content = (tmp_path / name).read_bytes()
    kind = {"t.csv": "csv", "t.json": "json", "t.tex": "latex", "t.parquet": "parquet", "t.txt": "table"}[name]
    if kind == "parquet":
        assert len(pd.read_parquet(tmp_path / name)) == 4
    else:
        out, _ = said(capsys, STORE, "--where", FEW, "--format", kind)
        assert [line.rstrip() for line in out.splitlines()] == content.decode().splitlines()


def test_parquet_goes_to_a_pipe_and_to_no_terminal(
    capsysbinary: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["results", str(STORE), "--format", "parquet"]) == 0
    assert len(pd.read_parquet(io.BytesIO(capsysbinary.readouterr().out))) == 44
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert main(["results", str(STORE), "--format", "parquet"]) == 2
    assert b"parquet is binary, and cannot be shown in a terminal; give --out FILE" in capsysbinary.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["nowhere"], 2, "results: no sweep in 'nowhere'"),
        ([STORE, "--where", "delay>uniform"], 2, "where: 'delay>uniform'"),
        ([STORE, "--where", "topolgy=ring"], 2, "where: no column 'topolgy'; did you mean 'topology'?"),
        ([STORE, "--where", "seed=0,"], 2, "where: a condition is empty"),
        ([STORE, "--columns", "final.los"], 2, "columns: no column 'final.los'; did you mean 'final.loss'?"),
        ([STORE, "--columns", "id,,seed"], 2, "columns: '' is not a name"),
        ([STORE, "--columns", "id,seed,id"], 2, "columns: 'id' is given twice"),
        ([STORE, "--best-over", "learning_rat"], 2, "best-over: 'learning_rat' is not a parameter that is varied; did you mean"),
        ([STORE, "--best-over", "learning_rate", "--columns", "id"], 2, "columns: no column 'id'"),
        ([STORE, "--format", "xml"], 2, "argument --format: unknown name 'xml'; known: csv"),
        ([STORE, "--out", "nowhere/t.csv"], 1, "out: cannot write"),
        ([], 2, "the following arguments are required: DIR"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_one_line(
    words: list[object], code: int, line: str, capsys: pytest.CaptureFixture
) -> None:
    out, err = said(capsys, *words, code=code)
    assert out == ""
    assert err.startswith(f"dopt: {line}")
    assert err.count("\n") == 1


def test_a_folder_without_results_is_one_line(folder: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.rmtree(folder / "slabs")
    _, err = said(capsys, folder, code=2)
    assert err.splitlines()[-1].endswith("is finished; run `dopt sweep FILE` first")


def test_parts_that_are_read_by_other_metrics_are_no_table(folder: Path, capsys: pytest.CaptureFixture) -> None:
    (folder / "reading.json").write_text(json.dumps({"metric": {"name": "loss", "target": 0.1}}))
    _, err = said(capsys, STORE, folder, code=2)
    assert "asks for the metric" in err


# -- what a sweep leaves ------------------------------------------------------------------------------------------------


def test_a_sweep_leaves_the_table_that_it_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(plan.PREFERRED, "cpu", 7)
    file, place = tmp_path / "small.yaml", tmp_path / "results"
    content = small_sweep(steps=10) | {"metric": {"name": "loss", "goal": "minimize", "target": 0.1}}
    file.write_text(json.dumps(content))
    words = ["sweep", str(file), "--results", str(place), "--wandb", "off"]
    assert main(words) == 0
    cells = tuned(dopt.load(place))
    (row,) = csv.DictReader(io.StringIO((place / "table.csv").read_text()))
    assert row == {name: "" if value != value else str(value) for name, value in cells.iloc[0].items()}
    title, _, head, _, *rows = (place / "table.md").read_text().splitlines()
    printed = capsys.readouterr().out
    for cell in (title, *(one.strip() for row in (head, *rows) for one in row.strip("|").split("|"))):
        assert cell in printed
    for name in ("table.csv", "table.md"):
        (place / name).unlink()
    monkeypatch.setattr(sweep, "is_writable", lambda _: False)
    assert main(words) == 0  # all is there
    assert not (place / "table.csv").exists()
    monkeypatch.undo()
    edited(min(place.glob("slabs/*/manifest.json")), lambda manifest: manifest.update(device="abacus"))
    capsys.readouterr()
    assert main(words) == 0
    assert (place / "table.csv").exists()
    out, err = capsys.readouterr()
    assert out.startswith("all 14 runs of small are finished already")
    assert "the table mixes devices: abacus (7 runs), " in err


def test_a_condition_that_is_none_is_refused_from_python(sound: Results) -> None:
    with pytest.raises(InputError, match=r"^where: "):
        sound.where("seed")


def test_results_can_be_copied_to_another_process_and_shown(sound: Results) -> None:
    there = pickle.loads(pickle.dumps(dopt.load(STORE)))
    assert_frame_equal(there.history, sound.history, check_exact=True)
    assert len(repr(there)) < 3000


def test_runs_that_nobody_asks_for_now_are_counted(folder: Path, capsys: pytest.CaptureFixture, sound: Results) -> None:
    few = sound.where("algorithm=allreduce_sgd").runs["id"].tolist()
    (folder / "reading.json").write_text(json.dumps({"metric": {"name": "loss"}, "order": few}))
    out, err = said(capsys, folder, "--columns", "id", "--format", "csv")
    assert out.split() == ["id", *few]
    assert err == f"results: 40 more runs of {folder} are hidden, since the latest sweep call did not ask for them\n"
