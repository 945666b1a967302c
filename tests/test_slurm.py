"""Job scripts of egs/asvspoof5/slurm: run as Slurm runs them, with stand-ins for its commands, and shown to a real one.

What a job would start is recorded, and then read by what would have read it: torchrun's own parser, spoofkit's own.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from warm import WarmPython

from spoofkit.torchrun import PATIENCE

ROOT = Path(__file__).parents[1]
SLURM = ROOT / "egs/asvspoof5/slurm"
JOBS = ("posttrain", "finetune", "score", "report")
TRAININGS = {"posttrain": 3, "finetune": 4}

# Long options of sbatch(1), Slurm 22.05, that a job script of ours could reasonably hold.
SBATCH_OPTIONS = {
    "account",
    "array",
    "begin",
    "chdir",
    "comment",
    "constraint",
    "cpus-per-gpu",
    "cpus-per-task",
    "dependency",
    "error",
    "exclude",
    "exclusive",
    "export",
    "gpu-bind",
    "gpus",
    "gpus-per-node",
    "gpus-per-task",
    "gres",
    "hint",
    "hold",
    "input",
    "job-name",
    "kill-on-invalid-dep",
    "licenses",
    "mail-type",
    "mail-user",
    "mem",
    "mem-per-cpu",
    "mem-per-gpu",
    "no-requeue",
    "nodelist",
    "nodes",
    "ntasks",
    "ntasks-per-gpu",
    "ntasks-per-node",
    "open-mode",
    "output",
    "partition",
    "qos",
    "requeue",
    "reservation",
    "signal",
    "switches",
    "time",
    "time-min",
    "tmp",
    "wrap",
}
SRUN_OPTIONS = {"nodes", "ntasks", "cpus-per-task", "kill-on-bad-exit"}  # of srun(1), Slurm 22.05
# What no script can know of a cluster, so that the user must be told to look at it.
CLUSTERS_OWN = {"account", "partition", "array", "nodes", "gpus-per-node", "cpus-per-task", "mem", "time"}

RECORD = '{ printf "%q " "${0##*/}" "$@"; echo; } >>"$CALLS"\n'
STAND_INS = {
    "spoofkit": "",
    # A training: it ends with exit code 0 after a while, and with 1 when it was told to stop, as torchrun does.
    "srun": 'trap \'exit "${SRUN_TOLD:-1}"\' USR1; echo $$ >"$CALLS.pid"\n'
    'for _ in $(seq "${SRUN_TICKS:-1}"); do sleep 0.02; done; exit "${SRUN_ENDS:-0}"\n',
    "scancel": 'kill -USR1 "$(cat "$CALLS.pid")"\n',
    "scontrol": 'if [[ $1 == show ]]; then echo "   PreemptTime=${PREEMPTED:-None} SuspendTime=None"; fi\n',
    # Numbers from 100 on; the cluster's name follows, as with several clusters.
    "sbatch": 'if [[ "$*" == *"${SBATCH_REFUSES:-nothing}"* ]]; then echo "sbatch: error: refused" >&2; exit 1; fi\n'
    'echo "$((99 + $(wc -l <"$CALLS")));cluster"\n',
}
# What a job reads of earlier stages, of which run.sh only asks whether they are there.
EARLIER = [f"data/{name}.tsv" for name in ("train", "dev", "eval")]
for _experiment in ("exp/mfpt", "exp/try", "exp/direct"):
    EARLIER += [f"{_experiment}/posttrain/{name}" for name in ("mix.tsv", "mix_dev.tsv", "encoder")]
    EARLIER += [f"{_experiment}/finetune/model"]
OF_A_JOB = {"SLURM_JOB_ID": "4242", "SLURM_NNODES": "2", "SLURM_CPUS_PER_TASK": "32", "SLURM_GPUS_ON_NODE": "4"}


@dataclass(frozen=True)
class Cluster:
    """A copy of the recipe on a machine whose Slurm only writes down what it is asked."""

    root: Path
    environ: dict[str, str]

    @property
    def recipe(self) -> Path:
        return self.root / "egs/asvspoof5"

    def start(self, job: str, *options: object, **environ: object) -> subprocess.Popen[str]:
        """Start a job as Slurm does: a copy of the script, elsewhere, in the folder it was submitted from."""
        spooled = self.root / "slurm_script"
        shutil.copy(self.recipe / f"slurm/{job}.sh", spooled)
        return subprocess.Popen(
            ["bash", spooled, *map(str, options)],
            cwd=self.recipe,
            env=self.environ | OF_A_JOB | {name: str(value) for name, value in environ.items()},
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, job: str, *options: object, ok: bool = True, **environ: object) -> str:
        """Run a job to its end; its messages."""
        process = self.start(job, *options, **environ)
        _, messages = process.communicate(timeout=60)
        assert (process.returncode == 0) == ok, messages
        return messages

    def calls(self, name: str) -> list[list[str]]:
        """Arguments of every call of a command, in order."""
        log = Path(self.environ["CALLS"])
        lines = [shlex.split(line) for line in log.read_text().splitlines()]
        return [arguments for called, *arguments in lines if called == name]


@pytest.fixture
def cluster(tmp_path: Path, warm_python: WarmPython) -> Cluster:
    recipe = ROOT / "egs/asvspoof5"
    (tmp_path / "egs").mkdir()
    generated = [path.name for path in recipe.iterdir() if path.is_dir() and path.name not in ("conf", "slurm")]
    shutil.copytree(recipe, tmp_path / "egs/asvspoof5", ignore=shutil.ignore_patterns(*generated, "*.log"))
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    for name in ("setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "calls").touch()
    for name in EARLIER:
        path = tmp_path / "egs/asvspoof5" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    commands = tmp_path / "environment/bin"  # an environment that is active, with a spoofkit that does nothing
    commands.mkdir(parents=True)
    for name, body in STAND_INS.items():
        (commands / name).write_text(f"#!/usr/bin/env bash\n{RECORD}{body}")
    (commands / "python").write_text(f'#!/usr/bin/env bash\nexec {shlex.quote(str(warm_python.python))} "$@"\n')
    for path in commands.iterdir():
        path.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_", "CONDA_"))}
    return Cluster(
        tmp_path,
        kept
        | {
            "PATH": f"{commands}:{os.environ['PATH']}",
            "VIRTUAL_ENV": str(commands.parent),
            "CALLS": str(tmp_path / "calls"),
        },
    )


def launch(call: list[str]) -> tuple[dict[str, str], Any, dict[str, Any]]:
    """What one srun was asked: its own options, torchrun's and spoofkit's, each read by its own parser."""
    from torch.distributed.run import get_args_parser

    at = call.index("spoofkit.torchrun")
    assert call[at - 2 : at] == ["python", "-m"]
    of_srun = dict(option.removeprefix("--").split("=", 1) for option in call[: at - 2])
    assert of_srun.keys() <= SRUN_OPTIONS
    of_torchrun = get_args_parser().parse_args(call[at + 1 :])
    assert (of_torchrun.module, of_torchrun.training_script) == (True, "spoofkit")
    return of_srun, of_torchrun, read_by_spoofkit(of_torchrun.training_script_args)


def read_by_spoofkit(arguments: list[str]) -> dict[str, Any]:
    """The parameters that spoofkit takes from a command line; an unknown option is an error."""
    from typer.main import get_command

    from spoofkit.cli.main import app

    verb, *options = arguments
    commands: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    params: dict[str, Any] = commands[verb].make_context(verb, options).params
    return params | {"verb": verb}


# ---- Training


@pytest.mark.parametrize(("job", "stage"), TRAININGS.items())
def test_a_training_runs_its_verb_in_a_process_for_each_gpu_of_every_machine(
    cluster: Cluster, job: str, stage: int
) -> None:
    messages = cluster.run(job, "--exp", "exp/try", "--settings", "seed=7", f"--{job}-args", "--tensorboard --compile")
    assert re.findall(r"Stage (\d)", messages) == [str(stage)]
    (call,) = cluster.calls("srun")
    of_srun, of_torchrun, params = launch(call)
    assert of_srun == {"nodes": "2", "ntasks": "2", "cpus-per-task": "32", "kill-on-bad-exit": "1"}
    assert (of_torchrun.nnodes, of_torchrun.nproc_per_node) == ("2", "4")
    assert (of_torchrun.rdzv_backend, of_torchrun.rdzv_id) == ("c10d", "4242")
    assert of_torchrun.rdzv_endpoint == f"{os.uname().nodename}:24242"
    # A revision in the settings is that of the encoder that was post-trained.
    assert (params["verb"], params["set_"]) == (job, ["seed=7", *["encoder.revision=null"] * (job == "finetune")])
    assert params["exp"] == cluster.recipe / "exp/try" / job
    assert (params["device"], params["workers"], params["overwrite"]) == ("cuda", 8, False)  # 32 cores, 4 GPUs
    assert (params["tensorboard"], params["compile_"]) == (True, True)
    assert requeued(cluster) == []


def test_options_given_at_submission_win_over_those_of_the_job(cluster: Cluster) -> None:
    cluster.run("finetune", "--device", "cpu", "--workers", 0, "--posttrain", "false")
    _, _, params = launch(cluster.calls("srun")[0])
    assert (params["device"], params["workers"], params["encoder"]) == ("cpu", 0, None)


def test_a_misspelt_option_ends_a_job_before_it_starts_anything(cluster: Cluster) -> None:
    assert "did you mean --conf?" in cluster.run("posttrain", "--cnof", "x.yaml", ok=False)
    assert cluster.calls("srun") == []


def warn(process: subprocess.Popen[str], cluster: Cluster) -> tuple[int, str]:
    """Send the job Slurm's warning while its training runs; how it ended."""
    for _ in range(500):
        if Path(f"{cluster.environ['CALLS']}.pid").exists():
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    _, messages = process.communicate(timeout=60)
    return process.returncode, messages


def requeued(cluster: Cluster) -> list[str]:
    return [job for what, job in (call[-2:] for call in cluster.calls("scontrol")) if what == "requeue"]


def test_a_job_that_saved_within_its_grace_time_requeues_itself(cluster: Cluster) -> None:
    """Slurm requeues what is still there when the grace time is over, and lets fail what has ended before."""
    cluster.run("finetune", SRUN_ENDS=1, PREEMPTED="2026-11-23T13:00:00", ok=False)
    assert requeued(cluster) == ["4242"]
    cluster.run("finetune", PREEMPTED="2026-11-23T13:00:00")
    assert requeued(cluster) == ["4242"]  # done before its grace was over


@pytest.mark.parametrize("restarts", ["", 1, 99])
def test_a_job_whose_time_is_over_tells_the_training_and_requeues_itself(cluster: Cluster, restarts: object) -> None:
    counted = {"SLURM_RESTART_COUNT": restarts} if restarts else {}
    code, messages = warn(cluster.start("posttrain", SRUN_TICKS=1000, **counted), cluster)
    assert cluster.calls("scancel") == [["--signal=USR1", "4242"]]
    assert requeued(cluster) == ["4242"]
    assert code == 1
    assert "requeued" in messages


def test_a_job_that_was_restarted_a_hundred_times_gives_up(cluster: Cluster) -> None:
    code, _ = warn(cluster.start("posttrain", SRUN_TICKS=1000, SLURM_RESTART_COUNT=100), cluster)
    assert requeued(cluster) == []
    assert code == 1


def test_a_training_that_ends_well_after_the_warning_is_not_requeued(cluster: Cluster) -> None:
    code, _ = warn(cluster.start("finetune", SRUN_TICKS=1000, SRUN_TOLD=0), cluster)
    assert cluster.calls("scancel") == [["--signal=USR1", "4242"]]
    assert requeued(cluster) == []
    assert code == 0


def test_a_training_that_fails_is_not_requeued_and_fails_the_job(cluster: Cluster) -> None:
    cluster.run("posttrain", SRUN_ENDS=1, ok=False)
    assert len(cluster.calls("srun")) == 1
    assert requeued(cluster) == []


@pytest.mark.parametrize("job", ["posttrain", "finetune", "score"])
def test_a_requeued_job_goes_on_also_where_it_was_submitted_to_begin_anew(cluster: Cluster, job: str) -> None:
    name, extra = ("spoofkit", {"SLURM_ARRAY_TASK_ID": 1}) if job == "score" else ("srun", {})
    cluster.run(job, "--overwrite", "true", **extra)
    cluster.run(job, "--overwrite", "true", SLURM_RESTART_COUNT=1, **extra)
    begun, *_, again = cluster.calls(name)
    assert "--overwrite" in begun
    assert "--overwrite" not in again


# ---- Scores and report


def test_each_task_of_the_array_scores_its_share_of_both_sets(cluster: Cluster) -> None:
    cluster.run("score", "--exp", "exp/try", SLURM_ARRAY_TASK_ID=3)
    calls = [read_by_spoofkit(call) for call in cluster.calls("spoofkit")]
    assert [(call["verb"], call["part"], call["merge"]) for call in calls] == [("score", "3/8", False)] * 2
    files = [[path.name for path in (*call["inputs"], call["out"])] for call in calls]
    assert files == [["dev.tsv", "dev.tsv"], ["eval.tsv", "eval.tsv"]]
    assert {call["out"].parent for call in calls} == {cluster.recipe / "exp/try/scores"}
    assert {(call["device"], call["workers"], call["reuse"]) for call in calls} == {("cuda", 32, True)}


def test_the_array_has_as_many_tasks_as_parts() -> None:
    text = (SLURM / "score.sh").read_text()
    assert re.findall(r"^#SBATCH --array=1-(\d+)", text, re.M) == re.findall(r"^parts=(\d+)", text, re.M) == ["8"]


def test_the_report_joins_the_shares_and_evaluates_without_scoring(cluster: Cluster) -> None:
    cluster.run("report", "--exp", "exp/try")
    calls = [read_by_spoofkit(call) for call in cluster.calls("spoofkit")]
    assert [call["verb"] for call in calls] == ["score", "score", "evaluate", "evaluate"]
    assert [(call["merge"], call["part"], call["device"]) for call in calls[:2]] == [(True, None, "cpu")] * 2
    assert [call["out"].name for call in calls[2:]] == ["dev", "eval"]


@pytest.mark.parametrize("job", ["posttrain", "score"])
def test_a_job_works_where_slurm_put_it_whatever_cmd_sh_says(cluster: Cluster, job: str) -> None:
    with open(cluster.recipe / "cmd.sh", "a", encoding="utf-8") as handle:
        handle.write('gpu_cmd="srun --gres=gpu:1"\n')
    cluster.run(job, SLURM_ARRAY_TASK_ID=1)
    assert [call for call in cluster.calls("srun") if "--gres=gpu:1" in call] == []


@pytest.mark.parametrize(
    ("job", "option"),
    [
        ("posttrain", "--ngpu=4"),
        ("finetune", "--stage=3"),
        ("score", "--stop_stage=3"),
        ("report", "--timeline"),
        ("report", "--dry-run"),
    ],
)
def test_options_that_a_job_sets_itself_are_refused(cluster: Cluster, job: str, option: str) -> None:
    assert f"{option.split('=')[0]}; omit it" in cluster.run(job, option, SLURM_ARRAY_TASK_ID=1, ok=False)
    assert Path(cluster.environ["CALLS"]).read_text() == ""


# ---- Submitting


def submit(cluster: Cluster, *options: object, **environ: str) -> subprocess.CompletedProcess[str]:
    """Call submit.sh from another folder than the recipe's."""
    command = ["bash", str(cluster.recipe / "slurm/submit.sh"), *map(str, options)]
    folder, environment = cluster.root / "egs", cluster.environ | environ
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def test_jobs_are_submitted_in_a_chain_each_with_the_same_options(cluster: Cluster) -> None:
    done = submit(cluster, "--settings", "seed=1", "--settings=finetune.n_steps=3", "--exp", "asvspoof5/exp/try")
    assert done.returncode == 0, done.stderr
    calls = cluster.calls("sbatch")
    assert [Path(next(a for a in call if a.endswith(".sh"))).stem for call in calls] == list(JOBS)
    needed = [[a.removeprefix("--dependency=") for a in call if a.startswith("--dependency=")] for call in calls]
    assert needed == [[], ["afterok:100"], ["afterok:101"], ["afterok:102"]]
    given = (f"--exp={cluster.recipe}/exp/try", "--settings=seed=1 finetune.n_steps=3")
    assert {tuple(call[-2:]) for call in calls} == {given}
    assert [line.split(",")[0] for line in done.stdout.splitlines()] == [
        f"{job}: job {number}" for number, job in enumerate(JOBS, start=100)
    ]


@pytest.mark.parametrize("given", [["--posttrain", "false"], ["--posttrain=false"]])
def test_without_post_training_no_job_waits_for_it(cluster: Cluster, given: list[str]) -> None:
    assert submit(cluster, *given).returncode == 0
    assert [call[-2] for call in cluster.calls("sbatch")] == [f"slurm/{job}.sh" for job in JOBS[1:]]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["--exp", "asvspoof5/exp/try", "--device-", "cpu"], "did you mean --device?"),
        (["--conf", "conf/nonexist.yaml"], "conf/nonexist.yaml"),
        (["--settings", "foo=1"], "foo"),
        (["--encoder", "no/such/folder"], "no/such/folder"),
        (["--finetune-args", "--tensorbord"], "--tensorbord"),
        (["--conf", "conf/xlsr300m.yaml"], "exp/xlsr300m/posttrain/mix.tsv"),  # stage 2 drew the lists of mfpt
        (["--stage", "4"], "--stage; omit it"),
        (["--timeline", "true"], "--timeline; omit it"),
    ],
)
def test_what_no_job_could_run_is_refused_before_any_is_queued(cluster: Cluster, given: list[str], named: str) -> None:
    done = submit(cluster, *given)
    assert done.returncode == 1
    assert named in done.stderr
    assert cluster.calls("sbatch") == []


def test_a_job_that_is_refused_ends_the_chain_and_names_the_jobs_to_cancel(cluster: Cluster) -> None:
    done = submit(cluster, SBATCH_REFUSES="score.sh")
    assert done.returncode == 1
    assert len(cluster.calls("sbatch")) == 3
    assert "scancel 100 101" in done.stderr
    assert "scancel" not in submit(cluster, SBATCH_REFUSES="posttrain.sh").stderr


# ---- The README, walked

# Jobs run at once, one after the other, each to its end; what depends on one that failed does not run.
QUEUE = r"""#!/usr/bin/env bash
id=$((100 + $(ls "$QUEUE" | wc -l))) array='' needed=''
while [[ $1 == --* ]]; do
  case $1 in
    --array=*) array=${1#*=} ;;
    --dependency=afterok:*) needed=${1##*:} ;;
  esac
  shift
done
script=$1; shift
echo "$script $*" >"$QUEUE/$id"
echo "$id"
if [[ -n $needed && ! -e $QUEUE/../$needed.done || -e $QUEUE/../paused ]]; then exit 0; fi
[[ -n $array ]] || array=$(sed -n 's/^#SBATCH --array=\([0-9,-]*\).*/\1/p' "$script")
: "${array:=1-1}"
cp "$script" "$QUEUE/../slurm_script"
export SLURM_JOB_ID=$id SLURM_NNODES=1 SLURM_CPUS_PER_TASK=0 SLURM_GPUS_ON_NODE=1
for SLURM_ARRAY_TASK_ID in $(seq ${array/-/ }); do
  export SLURM_ARRAY_TASK_ID
  bash "$QUEUE/../slurm_script" "$@" >>"$QUEUE/../$id.log" 2>&1 || exit 0
done
touch "$QUEUE/../$id.done"
"""
TINY = """
crop_samples: 16000
encoder: {name: tiny, freeze: none}
mix: {n_train: 24, n_dev: 12, min_region_samples: 800, margin_samples: 400}
posttrain: {n_steps: 2, batch_size: 4}
finetune: {n_steps: 2, batch_size: 4}
"""


def test_the_readme_can_be_followed_line_by_line(cluster: Cluster, corpus: Path) -> None:
    """Every command of the README, in its order, with jobs that run; only the machine is smaller than the README's."""
    commands = re.findall(r"^ {4,}(\S.*)$", (SLURM / "README.md").read_text(), re.M)
    assert len(commands) >= 8
    shutil.rmtree(cluster.recipe / "data")
    shutil.rmtree(cluster.recipe / "exp")
    for name in ("mfpt", "xlsr300m"):
        (cluster.recipe / f"conf/{name}.yaml").write_text(TINY)
    for job in JOBS:  # what EDIT asks for: one task, no GPU
        path = cluster.recipe / f"slurm/{job}.sh"
        text = path.read_text().replace("--array=1-8", "--array=1-1").replace("parts=8", "parts=1")
        path.write_text(text.replace("--device cuda", "--device cpu"))
    path = cluster.recipe / "slurm/train.sh"
    path.write_text(path.read_text().replace("--device cuda", "--device cpu"))
    bin_, queue = Path(cluster.environ["VIRTUAL_ENV"]) / "bin", cluster.root / "queue/jobs"
    queue.mkdir(parents=True)
    (bin_ / "sbatch").write_text(QUEUE)
    (bin_ / "srun").write_text('#!/usr/bin/env bash\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n')
    (bin_ / "spoofkit").write_text('#!/usr/bin/env bash\nexec python -m spoofkit "$@"\n')
    walked = "\n".join(commands).replace("/data/asvspoof5", f"{corpus} --partial")
    # The first chain runs to its report. What follows is submitted, that is checked and queued, and nothing more.
    first, submitted, rest = walked.partition("slurm/submit.sh\n")
    script = f"set -e\n{first}{submitted}touch {queue.parent}/paused\n{rest}\n"
    done = subprocess.run(
        ["bash", "-c", script], cwd=cluster.root, env=cluster.environ | {"QUEUE": str(queue)},
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    logs = "\n".join(path.read_text() for path in sorted(queue.parent.glob("*.log")))
    assert sorted(path.name for path in queue.parent.glob("*.done")) == [f"{n}.done" for n in range(100, 104)], logs
    assert (cluster.recipe / "exp/mfpt/results/eval/report.html").is_file()
    assert len(json.loads((cluster.recipe / "exp/mfpt/scores/eval.json").read_text())["parts"]) == 1
    asked = [path.read_text().split() for path in sorted(queue.iterdir())]
    assert [Path(words[0]).stem for words in asked] == [*JOBS, *JOBS, "finetune", "score", "report"]
    assert all((cluster.recipe / words[0]).is_file() for words in asked)
    assert {tuple(words[1:]) for words in asked[4:8]} == {(f"--conf={cluster.recipe}/conf/xlsr300m.yaml",)}


# ---- The scripts as text, and as a real Slurm reads them


def directives(job: str) -> list[tuple[str, str, str]]:
    """Each option of a job's #SBATCH lines, those to be uncommented too: name, value, comment behind it."""
    found = []
    for line in (SLURM / f"{job}.sh").read_text().splitlines():
        if match := re.match(r"##?SBATCH (.*?)(?:\s+#\s*(.*))?$", line):
            for option in match[1].split():
                name, _, value = option.removeprefix("--").partition("=")
                assert option.startswith("--"), line
                found.append((name, value, match[2] or ""))
        elif line and not line.startswith("#"):
            break  # Slurm reads no further
    return found


@pytest.mark.parametrize("job", JOBS)
def test_every_option_of_a_job_is_one_of_sbatch_and_stands_where_slurm_reads_it(job: str) -> None:
    names = [name for name, _, _ in directives(job)]
    assert set(names) <= SBATCH_OPTIONS
    assert {"job-name", "output", "time", "mem"} <= set(names)
    assert len(names) == len(set(names))
    _, _, commands = (SLURM / f"{job}.sh").read_text().partition("set -euo pipefail\n")
    assert commands
    assert "#SBATCH" not in commands


@pytest.mark.parametrize("job", JOBS)
def test_every_line_that_the_cluster_decides_says_so(job: str) -> None:
    for name, value, comment in directives(job):
        is_one = name in ("nodes", "gpus-per-node") and value == "1" and job in ("score", "report")
        assert comment.startswith("EDIT: ") == (name in CLUSTERS_OWN and not is_one), (job, name)


@pytest.mark.parametrize("job", TRAININGS)
def test_a_training_is_requeued_and_warned_before_torchrun_loses_patience(job: str) -> None:
    options = {name: value for name, value, _ in directives(job)}
    assert "requeue" in options
    assert options["open-mode"] == "append"
    assert options["ntasks-per-node"] == "1"
    name, _, seconds = options["signal"].partition("@")
    assert name == "B:USR1"
    assert int(PATIENCE) + 60 <= int(seconds)


@pytest.mark.parametrize("path", sorted(SLURM.glob("*.sh")), ids=lambda path: path.stem)
def test_each_script_is_a_page(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 120


def test_the_readme_names_every_script() -> None:
    text = (SLURM / "README.md").read_text()
    assert all(f"`{path.name}" in text for path in SLURM.glob("*.sh"))


def why_no_slurm() -> str:
    """Why nothing can be shown to a real Slurm; empty if it can."""
    if not shutil.which("sbatch"):
        return "Slurm is not installed here"
    try:
        done = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return "Slurm's controller does not answer"
    return "" if " is UP" in done.stdout else "Slurm is installed, but its controller is not up"


NO_SLURM = why_no_slurm()


@pytest.mark.skipif(bool(NO_SLURM), reason=NO_SLURM or "Slurm is up")
@pytest.mark.parametrize("job", JOBS)
def test_a_real_slurm_accepts_the_job(job: str) -> None:
    def ask(*options: str) -> subprocess.CompletedProcess[str]:
        command = ["sbatch", "--test-only", *options, str(SLURM / f"{job}.sh")]
        return subprocess.run(command, cwd=SLURM.parent, capture_output=True, text=True, timeout=60)

    done = ask()
    if "Requested node configuration is not available" in done.stderr:
        # Every option was understood, and only this cluster is smaller than what the script asks for.
        smaller = ["--nodes=1", "--cpus-per-task=1", "--mem=1M", "--time=1"]
        done = ask(*smaller, *(["--gpus-per-node=0"] if job != "report" else []))
    assert done.returncode == 0, done.stderr
    assert "to start at" in done.stderr
