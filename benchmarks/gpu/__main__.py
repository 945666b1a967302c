"""Supervise a run: one worker process runs the parts; a worker that hangs or dies is replaced for the other parts."""

import argparse
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gpu.plan import PLAN
from gpu.report import NOT_RUN, Report
from gpu.worker import work

SECONDS_TO_START = 90.0  # a worker imports torch, perhaps from a cold disk
SABOTAGE_SECONDS = 1.5


def main() -> None:
    parser = argparse.ArgumentParser("benchmarks/gpu.sh", description="What works on a GPU, and how fast.")
    parser.add_argument("out", type=Path, help="folder for block.md, results.json and log.txt; must be new or empty")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--size", choices=("full", "tiny"), default="full", help="tiny: try the script itself")
    parser.add_argument("--commit", default="unknown", help="commit to name in the block")
    parser.add_argument("--parts", default=",".join(PLAN), help="only these, separated by commas: %(default)s")
    parser.add_argument("--seconds", type=float, default=440.0, help="time limit of the whole run")
    parser.add_argument("--sabotage", action="append", default=[], metavar="PART=fail|hang", help="for tests")
    options = parser.parse_args()
    names = options.parts.split(",")
    sabotage = dict(entry.split("=", 1) for entry in options.sabotage)
    unknown = [name for name in [*names, *sabotage] if name not in PLAN]
    if unknown or not set(sabotage.values()) <= {"fail", "hang"}:
        parser.error(f"found {', '.join(unknown) or options.sabotage}, expected parts among {', '.join(PLAN)}")
    options.out.mkdir(parents=True, exist_ok=True)
    if any(options.out.iterdir()):
        parser.error(f"{options.out}: is not empty; name a new folder")
    said = {name: getattr(options, name) for name in ("device", "size", "commit", "seconds")}
    report = Report.of(options.out, said, {name: PLAN[name] for name in names})
    with tempfile.TemporaryDirectory(prefix="spoofkit-gpu-", ignore_cleanup_errors=True) as folder:
        log = str((options.out / "log.txt").absolute())
        own = {"device": options.device, "size": options.size, "work": folder, "log": log, "sabotage": sabotage}
        supervise(report, own, time.monotonic() + options.seconds)
    print(f"{options.out}/block.md")
    sys.exit(any(block.status not in ("done", "not possible here") for block in report.blocks.values()))


def supervise(report: Report, options: dict[str, Any], end: float) -> None:
    """Run all parts, with as many workers as necessary."""
    left = list(report.blocks)
    report.write()
    while left and time.monotonic() < end:
        done = watch(report, left, options, end)
        left = left[done:]
    for name in left:
        block = report.blocks[name]
        block.status, block.why = NOT_RUN, "out of time"
    report.write()


def watch(report: Report, names: list[str], options: dict[str, Any], end: float) -> int:
    """Follow one worker until it has finished or a part failed, hung or killed it; return how many parts are over."""
    context = multiprocessing.get_context("fork")  # safe: this process has no threads and has not imported torch
    receiver, sender = context.Pipe(duplex=False)
    worker = context.Process(target=work, args=(names, options, sender))
    worker.start()
    sender.close()
    n_over, part_began, limit, is_spent = 0, time.monotonic(), SECONDS_TO_START, False
    try:
        while n_over < len(names):
            block = report.blocks[names[n_over]]
            wait = min(part_began + limit, end) - time.monotonic()
            if not receiver.poll(max(0.0, wait)):
                is_over_all = time.monotonic() >= end
                limits = f"the whole run may take {report.options['seconds']:g} s" if is_over_all else f"{limit:g} s"
                what = "over its limit" if block.status == "running" else "the worker did not start"
                block.status, block.why = "failed", f"{what} ({limits})"
                block.seconds = time.monotonic() - part_began
                return n_over + 1
            try:
                kind, content = receiver.recv()
            except EOFError:
                worker.join(5)
                block.status, block.why = "failed", f"its process ended, exit code {worker.exitcode}; see log.txt"
                return n_over + 1
            if kind == "ready":
                report.facts = content
            elif kind == "started":
                block.status, part_began = "running", time.monotonic()
                limit = SABOTAGE_SECONDS if options["sabotage"].get(content) else PLAN[content].seconds
            elif kind == "row":
                block.rows.append(content)
            elif kind == "ended":
                block.status, block.why = content
                block.seconds = time.monotonic() - part_began
                n_over, part_began, limit = n_over + 1, time.monotonic(), SECONDS_TO_START
                is_spent = block.status == "failed"
                print(f"{block.seconds:6.1f} s  {block.title}: {block.status} {block.why}", flush=True)
            report.write()
            if is_spent:
                break
        return n_over
    finally:
        end_group(worker)


def end_group(worker: Any) -> None:
    """Kill a worker and all processes that it started."""
    worker.join(0.5)
    try:
        os.killpg(worker.pid, signal.SIGKILL)
    except ProcessLookupError:
        worker.kill()
    worker.join()


if __name__ == "__main__":
    main()
