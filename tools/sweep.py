#!/usr/bin/env python3
"""Run a grid of experiments, each a recipe's run.sh, and compare its cells: one table and one figure.

    tools/sweep.py egs/asvspoof5/sweeps/heads.yaml --corpus /data/asvspoof5 --dry-run    # the plan and its hours
    tools/sweep.py egs/asvspoof5/sweeps/heads.yaml --corpus /data/asvspoof5 --gpus 0,1   # run it here, on two GPUs
    tools/sweep.py egs/asvspoof5/sweeps/heads.yaml --corpus /data/asvspoof5 --slurm      # submit it to Slurm
    tools/sweep.py egs/asvspoof5/sweeps/heads.yaml --report                              # the table of what is there

The grid comes first; options that are not listed below are passed to run.sh. The same command resumes after a kill and
skips what is done, so seeds and cells can be added to a grid. docs/sweeps.md explains grids and the table.
"""

import argparse
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    from sweep_plan import ROOT, Plan, Run, make_plan, require_manifests

    from spoofkit.errors import SpoofkitError
    from spoofkit.files import make_folder, write_json
    from spoofkit.tables import Column, Table, show
    from spoofkit.terminal import say
except ModuleNotFoundError as error:
    sys.exit(f"sweep.py: {error}; set the environment up with tools/setup.sh, then: . .venv/bin/activate")

STOPPED = (75, 130, 143)  # exit codes of a training that a signal stopped, and of its shell
EXIT_INTERRUPTED = 130


class Pool:
    """Runs run.sh in several slots, each with its GPU if they are named, and passes a signal on to what runs."""

    def __init__(self, slots: Sequence[str | None]) -> None:
        self.free = list(slots)
        self.signal: int | None = None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._note)

    def _note(self, number: int, _: Any) -> None:
        self.signal = number  # the loop passes it on: a handler that does more could meet a lock of its own process

    def run(self, runs: Sequence[Run], stages: tuple[int, int] | None = None) -> list[Run]:
        """Run these in this order; one that needs another waits for it, and fails with it. Return those that failed."""
        waiting, failed, running, told = list(runs), list[Run](), list[Started](), set[Path]()
        while waiting or running:
            if self.signal is not None:
                self._stop(running)
            for run in list(waiting):
                lacks = {other.folder for other in [*waiting, *(started.run for started in running)]}
                needs = run.needs.folder if run.needs else None
                if needs in [other.folder for other in failed]:
                    waiting.remove(run)
                    failed.append(run)
                elif self.free and needs not in lacks:
                    try:
                        started = start(run, stages or run.stages, self.free[0])
                    except (OSError, SpoofkitError) as error:  # such as a full disk; other runs may still end
                        say(f"{run.folder}: failed ({error})")
                        waiting.remove(run)
                        failed.append(run)
                        continue
                    if started is not None:
                        waiting.remove(run)
                        running.append(started)
                        del self.free[0]
                    elif run.folder not in told:
                        told.add(run.folder)
                        say(f"{run.folder}: runs already, for another or a killed sweep; waiting for its end")
            for started in [one for one in running if one.process.poll() is not None]:
                running.remove(started)
                self.free.append(started.slot)
                if not is_good(started):
                    failed.append(started.run)
            time.sleep(0.1)
        return failed

    def _stop(self, running: Sequence["Started"]) -> None:
        """Have what runs save and end."""
        assert self.signal is not None
        for started in running:
            if started.process.poll() is None:
                os.killpg(started.process.pid, self.signal)
        say("sweep.py: interrupted; the same command resumes")
        sys.exit(EXIT_INTERRUPTED)


@dataclass(frozen=True)
class Started:
    """A run that has begun."""

    run: Run
    process: subprocess.Popen[bytes]
    slot: str | None
    began: float


def start(run: Run, stages: tuple[int, int], slot: str | None) -> Started | None:
    """Start a run, unless another process has it: all that it starts holds its lock, also after a sweep was killed."""
    environment = os.environ | ({"CUDA_VISIBLE_DEVICES": slot} if slot is not None else {})
    make_folder(run.folder)
    with open(run.folder / ".sweep_lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        begin(run)
        with open(run.folder / "run.log", "ab") as log:
            process = subprocess.Popen(
                run.command(*stages), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                start_new_session=True, pass_fds=[lock.fileno()],
            )  # fmt: skip
    say(f"{run.folder}: begins")
    return Started(run, process, slot, time.monotonic())


def is_good(started: Started) -> bool:
    """Say how a run ended; a failed one gets failed.json."""
    run, code = started.run, started.process.returncode
    if code == 0:
        say(f"{run.folder}: done after {(time.monotonic() - started.began) / 60:.1f} min")
    elif code not in STOPPED:
        say(f"{run.folder}: failed ({last_line(run)}), see run.log there")
        try:
            write_json(run.folder / "failed.json", {"exit_code": code, "last_line": last_line(run)}, overwrite=True)
        except SpoofkitError as error:
            say(f"{run.folder}: {error}")
    return code == 0


def begin(run: Run) -> None:
    """Make a run's folder, and record what it will be before anything else is in it."""
    make_folder(run.folder)
    if run.record is not None and not (run.folder / "run.json").exists():
        write_json(run.folder / "run.json", run.record)
    (run.folder / "failed.json").unlink(missing_ok=True)


def last_line(run: Run) -> str:
    """Return the last line of a run's log."""
    log = run.folder / "run.log"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "no message"


def submit(plan: Plan) -> None:
    """Submit to Slurm what is neither done nor queued, as the jobs of each recipe's slurm/; mix lists are drawn before.

    Raises:
        SpoofkitError: sbatch refuses a job.
    """
    queued = set(_of_slurm(["squeue", "--noheader", "--me", "--format=%A"], ROOT).split())
    last: dict[Path, str] = {}
    for run in plan.left:
        path = run.folder / "jobs.txt"
        before = path.read_text().split() if path.exists() else []
        if queued.intersection(before):
            say(f"{run.folder}: already queued as {', '.join(before)}")
            last[run.folder] = before[-1]
            continue
        begin(run)
        after = last.get(run.needs.folder) if run.needs else None
        jobs = []
        for job in ("finetune", "score", "report") if run.stages[0] == 4 else ("posttrain",):
            needed = [f"--dependency=afterok:{after}", "--kill-on-invalid-dep=yes"] if after else []
            command = ["sbatch", "--parsable", *needed, f"slurm/{job}.sh", *run.experiment]
            after = _of_slurm(command, run.recipe).strip().partition(";")[0]
            jobs.append(after)
            path.write_text("\n".join(jobs) + "\n")
        last[run.folder] = jobs[-1]
        say(f"{run.folder}: jobs {', '.join(jobs)}, logs in {run.recipe / 'slurm'}")


def require_jobs(plan: Plan, given: Mapping[str, str]) -> None:
    """Refuse to submit what no job could run.

    Raises:
        SpoofkitError: a recipe has no jobs, or an option is theirs.
    """
    for recipe in dict.fromkeys(run.recipe for run in plan.runs):
        if not (recipe / "slurm").is_dir():
            raise SpoofkitError(f"--slurm: there is no {recipe / 'slurm'} with jobs; leave --slurm out")
    if "ngpu" in given:
        raise SpoofkitError("--ngpu: a job uses the GPUs that Slurm gives it; change --gpus-per-node in slurm/")


def _of_slurm(command: list[str], folder: Path) -> str:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        raise SpoofkitError(f"--slurm: found no {command[0]}; submit from a login node, or leave --slurm out") from None
    if done.returncode:
        raise SpoofkitError(f"{' '.join(command[:1])}: {done.stderr.strip()}; what is queued already stays")
    return done.stdout


def print_plan(plan: Plan) -> None:
    """Print each run, who uses it, and its estimated hours."""
    needed = [run.needs.folder for _, runs in plan.cells for run in runs if run.needs]
    left = {run.folder for run in plan.left}
    rows = [
        {
            "run": str(run.folder.relative_to(plan.out)),
            "stages": "{} {}-{}".format(run.recipe.name, *run.stages),
            "encoder": run.needs.folder.name if run.needs else f"for {n}" if (n := needed.count(run.folder)) else "-",
            "GPU hours": run.hours if run.products else None,
            "state": "to run" if run.folder in left or not run.products else "done" if run.is_done else "not needed",
        }
        for run in [*plan.data, *plan.runs]
    ]
    columns = [Column(name, form=".2f" if name == "GPU hours" else "") for name in rows[0]]
    show(Table(columns, rows))
    total, still = (sum(run.hours for run in runs) for runs in (plan.runs, plan.left))
    show(f"{plan.out}: {len(plan.runs)} runs, {total:.1f} GPU hours, {still:.1f} of them to run (estimates)")


def read_given(words: Sequence[str]) -> dict[str, str]:
    """Return the options for run.sh among the words of the command line, by name.

    Raises:
        SpoofkitError: a word is none, or an option is given twice.
    """
    given: dict[str, str] = {}
    left = list(words)
    while left:
        word = left.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not name:
            raise SpoofkitError(f"{word}: expected the grid first, then options")
        if name.replace("_", "-") in given:
            raise SpoofkitError(f"--{name}: is given twice; give it once")
        if not equals:
            value = left.pop(0) if left and not left[0].startswith("--") else "true"
        given[name.replace("_", "-")] = value
    return given


def main() -> None:
    """Run the program; an error is one sentence on stderr and exit code 1."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
        usage="tools/sweep.py GRID.yaml [OPTIONS] [OPTIONS OF run.sh]",
    )  # fmt: skip
    parser.add_argument("grid", type=Path, metavar="GRID.yaml")
    parser.add_argument("-o", "--out", type=Path, help="folder of the sweep. Default: RECIPE/exp/sweeps/GRID")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--jobs", type=int, default=1, help="number of runs at once, on this machine")
    where.add_argument("--gpus", default="", help="such as 0,1,2,3: one run at a time on each of these GPUs")
    where.add_argument("--slurm", action="store_true", help="submit the jobs of RECIPE/slurm; stages 1 and 2 run here")
    parser.add_argument("--stage", type=int, choices=(1, 2), default=1, help="2: the manifests exist already")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="check everything and print the runs with their hours")
    what.add_argument("--report", action="store_true", help="only compare what is there")
    arguments, words = parser.parse_known_args()
    try:
        sys.exit(run_sweep(arguments, read_given(words)))
    except OSError as error:
        say(f"sweep.py: error: {error.filename}: {error.strerror}")
        sys.exit(1)
    except SpoofkitError as error:
        say(f"sweep.py: error: {error}")
        sys.exit(1)


def run_sweep(arguments: argparse.Namespace, given: dict[str, str]) -> int:
    """Plan, run and report; the exit code is 1 if a cell has no result."""
    if arguments.jobs < 1:
        raise SpoofkitError(f"--jobs {arguments.jobs}: expected 1 or more")
    slots: list[str | None] = [*filter(None, arguments.gpus.split(","))] or [None] * arguments.jobs
    stage = 2 if arguments.report else arguments.stage
    plan = make_plan(arguments.grid, arguments.out, given, stage, is_checked=not arguments.report)
    if stage == 2:
        require_manifests(plan)
    if arguments.slurm:
        require_jobs(plan, given)
    if arguments.dry_run:
        print_plan(plan)
        return 0
    if plan.left and not arguments.report:
        make_folder(plan.out)
        pool = Pool(slots)
        if failed := pool.run(plan.data):
            raise SpoofkitError(f"{failed[0].folder / 'run.log'}: data preparation failed: {last_line(failed[0])}")
        require_manifests(plan)
        if arguments.slurm:
            pool.run([run for run in plan.left if run in plan.posttrainings], (2, 2))
            submit(plan)
            say("when the jobs are done: the same command with --report instead of --slurm")
            return 0
        pool.run(plan.left)
    from sweep_report import report

    return report(plan)


if __name__ == "__main__":
    main()
