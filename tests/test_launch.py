"""What `dopt launch` makes: a script that bash and sbatch read as it was meant, objects that Kubernetes takes; or one line."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from small import small_sweep

from dopt import InputError
from dopt.cli import main
from dopt.cli.parser import parser
from dopt.launch import kubernetes, share, slurm
from dopt.sweeps import spec
from dopt.sweeps.shard import Shard

HOSTILE = ("$(touch came)", "`touch came`", "a b", "a'b\"c", "a;touch came", "a|b", "-x", "ü #%A", "{braces}", "")
KUBERNETES = "1.29"  # from which on the fields of the job are there without being switched on
TASK = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(small_sweep()))
    return tmp_path


def prints(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """stdout of a command that does what it is asked."""
    code = main(["launch", *arguments])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


def refuses(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str, code: int = 2) -> None:
    """One line, and nothing written."""
    before = sorted(Path().rglob("*"))
    assert main(["launch", *arguments]) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1), err
    assert said in err
    assert sorted(Path().rglob("*")) == before


def options(script: str) -> dict[str, str | None]:
    """What sbatch reads, which ends at the first line that is no comment; a value is one word of it."""
    found: dict[str, str | None] = {}
    for line in script.partition("\n\n")[0].splitlines()[1:]:
        (word,) = shlex.split(line.removeprefix("#SBATCH "))
        flag, equals, value = word.removeprefix("--").partition("=")
        assert flag not in found
        found[flag] = value if equals else None
    return found


def command(script: str) -> list[str]:
    """The words of the sweep that each task does."""
    (line,) = [line for line in script.splitlines() if " -m dopt sweep " in line]
    *words, last = shlex.split(line)
    assert last == "&"
    return words


# -- Slurm --


def test_a_script_asks_for_what_was_asked_and_goes_on_after_a_signal(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--partition=a,b", "--account=me", "--time=1-12", "--gpus=a100:2", "--cpus=4", "--mem=16G"]
    script = prints(capsys, "slurm", "small.yaml", "--array=3", "--print", "--set=steps=[30, 40]", *given)
    assert script.startswith("#!/bin/bash\n#SBATCH ")
    assert options(script) == {
        "job-name": "dopt-small",
        "array": "0-2",
        "requeue": None,
        "signal": "B:TERM@60",
        "open-mode": "append",
        "chdir": str(here),
        "output": f"{here}/results/small_steps--30-40/logs/slurm-%A_%a.log",
        "partition": "a,b",
        "account": "me",
        "time": "1-12",
        "gpus": "a100:2",
        "cpus-per-task": "4",
        "mem": "16G",
    }
    assert command(script) == [
        *(sys.executable, "-m", "dopt", "sweep", f"{here}/small.yaml"),
        *(f"--results={here}/results/small_steps--30-40", "--wandb=auto", "--jobs=4", "--set=steps=[30, 40]"),
    ]
    assert not (here / "results").exists()


@pytest.mark.parametrize("word", HOSTILE)
def test_bash_reads_whatever_a_name_holds_as_one_word(word: str, here: Path) -> None:
    asked = [sys.executable, "-m", "dopt", "sweep", word, f"--set=x={word}"]
    script = slurm.script(word or "x", asked, here / word, 2, {}, here / word)
    assert subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True).stderr == ""
    echoed = script.replace(f"{shlex.quote(sys.executable)} -m dopt sweep", "printf '%s\\n'").replace("squeue", "false")
    done = subprocess.run(
        ["bash", "-u"], input=echoed, text=True, capture_output=True, env={"PATH": os.environ["PATH"]} | TASK
    )
    assert (done.returncode, done.stdout.splitlines()) == (0, asked[4:]), done.stderr
    said = options(script)
    assert said["chdir"] == str(here / word)
    assert said["output"] == str(here / word).replace("%", "%%") + "/logs/slurm-%A_%a.log"
    assert re.fullmatch("dopt-[A-Za-z0-9._-]+", str(said["job-name"]))
    assert list(here.iterdir()) == [here / "small.yaml"]


@pytest.mark.parametrize("state", ["RUNNING", "COMPLETING"])
@pytest.mark.parametrize("finished", [0, 1])
def test_a_task_that_is_told_ends_its_sweep_and_queues_again_if_it_was_of_use(
    state: str, finished: int, here: Path
) -> None:
    body = f"trap 'mkdir -p {here}/r/slabs/a; exit 143' TERM; kill -TERM $PPID; while :; do sleep 0.02; done"
    body = body if finished else body.replace(f"mkdir -p {here}/r/slabs/a; ", "")
    for name, does in {"squeue": f"echo {state}", "scontrol": 'echo "$@"', "sweep": body}.items():
        tool(here / "bin" / name, does)
    script = slurm.script("small", ["sweep"], here / "r", 2, {})
    env = {"PATH": f"{here}/bin:{os.environ['PATH']}"} | TASK
    done = subprocess.run(["bash"], input=script, text=True, capture_output=True, env=env, timeout=20)
    assert done.returncode == 143
    assert done.stdout == ("requeue 7_1\n" if state == "RUNNING" and finished else "")
    assert ("longer --time" in done.stderr) == (state == "RUNNING" and not finished)


@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_task_ends_as_its_sweep_does(code: int, here: Path) -> None:
    script = slurm.script("small", ["bash", "-c", f"exit {code}"], here, 2, {})
    assert subprocess.run(["bash"], input=script, text=True, env={"PATH": os.environ["PATH"]} | TASK).returncode == code


def tool(path: Path, does: str) -> None:
    """A command of that name."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/bash\n{does}\n")
    path.chmod(0o755)


def test_sbatch_is_handed_what_print_shows(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tool(here / "bin/sbatch", f'echo "$@" > {here}/words; cat > {here}/got; echo "41;elsewhere"')
    monkeypatch.setenv("PATH", f"{here}/bin", prepend=os.pathsep)
    asked = ("slurm", "small.yaml", "--array=3", "--results=o d%", "--time=5")
    shown = prints(capsys, *asked, "--print")
    said = prints(capsys, *asked)
    assert (here / "got").read_text() == shown
    assert (here / "words").read_text() == "--parsable\n"
    assert said == "submitted job 41; its tasks write their output to o d%/logs\n"
    assert (here / "o d%/logs").is_dir()  # or no task could start


def test_no_sbatch_and_one_that_refuses_are_a_line(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "results/small/logs").mkdir(parents=True)
    monkeypatch.setenv("PATH", f"{here}/bin")
    asked = ["slurm", "small.yaml", "--array=1"]
    refuses(capsys, asked, "slurm: cannot run sbatch (No such file or directory)", code=1)
    tool(here / "bin/sbatch", "echo 'sbatch: error: invalid partition\nsbatch: error: failed' >&2; exit 1")
    refuses(capsys, asked, "slurm: sbatch refuses: invalid partition; failed", code=1)
    tool(here / "bin/sbatch", "exit 3")
    refuses(capsys, asked, "slurm: sbatch refuses: exit code 3", code=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("partition", value) for value in (*HOSTILE, "a,", "a\nb")),
        *(("account", value) for value in (*HOSTILE, "a,b")),
        *(("time", value) for value in ("1h", "1:2:3:4", "1-", "-5", "", "١", "5\n")),
        *(("gpus", value) for value in ("0", "x", "a:", "1 2")),
        *(("cpus", value) for value in ("0", "-1", "1.5", "x")),
        *(("mem", value) for value in ("0", "16g", "1GB", "16 G")),
    ],
)
def test_what_slurm_would_not_take_is_refused(name: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    refuses(capsys, ["slurm", "no.yaml", "--array=2", f"--{name}={value}"], f"dopt: {name}: must be ")


def test_wrong_words_of_slurm_are_a_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = ["slurm", "small.yaml", "--array=2"]
    refuses(capsys, ["slurm", "small.yaml", "--array=0"], "array: must be at least 1, got 0")
    refuses(capsys, ["slurm", "small.yaml"], "--array")
    refuses(capsys, ["slurm", "smal.yaml", "--array=2"], "did you mean 'small.yaml'?")
    refuses(capsys, [*known, "--partion=x"], "did you mean '--partition'?")
    refuses(capsys, [*known, "--set=stepz=3"], "stepz")
    refuses(capsys, [*known, "--print", "--results=a\nb"], "text of one line")
    refuses(capsys, [*known, "--print", "--results=a\\b"], "backslashes")
    (here / "small.yaml").write_text("parameters: {}")
    refuses(capsys, known, "sweep.parameters")


# -- Kubernetes --

NEEDED = ("--image=me/dopt:1.0@sha256:ab", "--claim=results")


def objects(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ConfigMap and the Job, which Kubernetes' own schema takes."""
    made, job = yaml.safe_load_all(text)
    for one in (made, job):
        kubernetes_validate.validate(one, KUBERNETES, strict=True)
    return made, job


def container(job: dict[str, Any]) -> dict[str, Any]:
    (found,) = job["spec"]["template"]["spec"]["containers"]
    return dict(found)


def expanded(word: str, env: dict[str, str]) -> str:
    """As Kubernetes does: $(NAME) is the value of a variable that it knows, and $$ is $."""
    return re.sub(r"\$\$|\$\(([^)]*)\)", lambda m: "$" if m[0] == "$$" else env.get(m[1], m[0]), word)


def pod_says(here: Path, job: dict[str, Any], index: str) -> list[str]:
    """The words that dopt is given in the pod of that number."""
    tool(here / "bin/dopt", "printf '%s\\n' \"$@\"")
    env = {"PATH": f"{here}/bin:{os.environ['PATH']}", "JOB_COMPLETION_INDEX": index}
    words = [expanded(one, env | {"touch came": "came"}) for one in container(job)["command"]]
    return subprocess.run(words, text=True, capture_output=True, env=env, check=True).stdout.splitlines()


def test_a_job_is_what_kubernetes_takes_and_shares_a_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [*NEEDED, "--gpus=2", "--cpu=500m", "--memory=1.5Gi", "--namespace=lab", "--set=steps=30"]
    made, job = objects(prints(capsys, "kubernetes", "small.yaml", "--completions=5", *given))
    assert made["data"] == {"sweep": (here / "small.yaml").read_text()}
    for one in (made, job):
        assert one["metadata"] == {"name": "dopt-small", "namespace": "lab"}
    asked = job["spec"]
    assert (asked["completionMode"], asked["completions"], asked["parallelism"]) == ("Indexed", 5, 5)
    assert asked["backoffLimitPerIndex"] == 3
    pod = asked["template"]["spec"]
    assert (pod["restartPolicy"], pod["terminationGracePeriodSeconds"]) == ("Never", 60)
    runs = container(job)
    words = ["dopt", "sweep", "/sweep/small.yaml", "--wandb=off", "--set=steps=30", "--results=/results/small"]
    assert runs["command"] == words
    assert runs["resources"]["limits"] == {"cpu": "500m", "memory": "1.5Gi", "nvidia.com/gpu": "2"}
    assert {m["mountPath"]: m["name"] for m in runs["volumeMounts"]} == {"/sweep": "sweep", "/results": "results"}
    files, results = pod["volumes"]
    assert files["configMap"] == {"name": "dopt-small", "items": [{"key": "sweep", "path": "small.yaml"}]}
    assert results["persistentVolumeClaim"] == {"claimName": "results"}


@pytest.mark.parametrize("word", [word for word in HOSTILE if word not in ("", "-x")])
@pytest.mark.parametrize("shard", [False, True])
def test_no_name_is_read_as_more_than_itself(shard: bool, word: str, here: Path) -> None:
    """Neither by YAML, nor by Kubernetes, nor by the shell; and shards count from 1."""
    given = {"name": "x", "image": "x", "claim": "x", "cpu": "1"}
    rendered = kubernetes.render(Path(word), word, [f"--set=x={word}"], word, 3, not shard, given)
    made, job = objects(kubernetes.written(rendered))
    assert made["data"]["sweep"] == word
    said = pod_says(here, job, "1")
    where = f"--results=/results/{word}"
    last = [f"{where}/shard-2", "--shard", "2/3"] if shard else [where]
    assert said == ["sweep", f"/sweep/{word}", f"--set=x={word}", *last]
    assert not (here / "came").exists()


@pytest.mark.parametrize("name", ["Small Sweep", "ü", "-", "a" * 200, "under_score"])
def test_a_name_of_a_sweep_becomes_one_that_kubernetes_takes(name: str) -> None:
    made = kubernetes.default_name(name)
    kubernetes.check({"name": made})
    assert len(made) + len("-999999") <= 63


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("image", value) for value in ("", "a b", "-x", "$(x)", "a\nb")),
        *(("claim", value) for value in ("", "A", "a_b", "-a", "a-", "a/b")),
        *(("namespace", value) for value in ("", "A", "a.b", "a b")),
        *(("name", value) for value in ("", "A", "a_b", "-a")),
        *(("gpus", value) for value in ("0", "-1", "x", "1.5")),
        *(("cpu", value) for value in ("0", "0.0", "x", "1G", "0m")),
        *(("memory", value) for value in ("0", "16gb", "16 Gi", "1e9x")),
    ],
)
def test_what_kubernetes_would_not_take_is_refused(name: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    needed = [flag for flag in NEEDED if not flag.startswith(f"--{name}=")]
    words = ["kubernetes", "no.yaml", "--completions=2", *needed, f"--{name}={value}"]
    refuses(capsys, words, f"dopt: {name}: must be ")


def test_wrong_words_of_kubernetes_are_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    known = ["kubernetes", "small.yaml", *NEEDED]
    refuses(capsys, [*known, "--completions=0"], "completions: must be at least 1, got 0")
    refuses(capsys, ["kubernetes", "small.yaml", "--completions=2", NEEDED[0]], "--claim")
    refuses(capsys, [*known, "--completions=1", "--results=/elsewhere"], "results: must be a folder on the claim")
    refuses(capsys, [*known, "--completions=1", "--results=a/../../b"], "results: must be a folder on the claim")
    refuses(capsys, [*known, "--completions=1", f"--name={'a' * 62}"], "name: must have at most 61 characters")
    refuses(capsys, [*known, "--completions=1", "--set=seed=\x1b"], "seed")


# -- both --


@pytest.mark.parametrize("shard", [False, True])
def test_what_tasks_and_pods_run_is_what_dopt_takes(
    shard: bool, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = ["--set=steps=30", "--set=learning_rate=[0.1, 0.2]"]
    script = prints(capsys, "slurm", "small.yaml", "--array=1", "--print", *sets)
    given = {"name": "x", "image": "x", "claim": "x", "cpu": "1"}
    _, job = kubernetes.render(Path("small.yaml"), "", [*sets, "--wandb=off"], "small", 3, not shard, given)
    for words in (command(script)[3:], pod_says(here, job, "2")):
        asked, rest = parser()[0].parse_known_args(words)
        assert (asked.command, Path(asked.file).name, rest) == ("sweep", "small.yaml", [])
        assert asked.set == [flag.removeprefix("--set=") for flag in sets]
    assert asked.shard == ("3/3" if shard else None)
    assert asked.shard is None or Shard.read(asked.shard) == Shard(3, 3)


def test_more_processes_than_slabs_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    asked = spec.parse(small_sweep(seed=list(range(20)), steps=[20, 30]))  # 80 runs in two groups of 40
    assert share.slabs_on_cpu(asked) == 4
    assert share.idle(asked, 4, "tasks") is None
    assert share.idle(asked, 5, "tasks") == "small: 5 tasks for 4 slabs (80 runs); 4 would be enough"
    assert main(["launch", "kubernetes", "small.yaml", *NEEDED, "--completions=3"]) == 0
    assert capsys.readouterr().err == "dopt: small: 3 pods for 1 slab (14 runs); 1 would be enough\n"


def test_a_word_that_steers_a_terminal_reaches_no_script() -> None:
    with pytest.raises(InputError, match="text of one line"):
        slurm.script("x", ["dopt", "a\x1b[2J"], Path("/r"), 1, {})
