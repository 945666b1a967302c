"""Sweeps: what cells share runs once, a kill loses nothing, nothing incomplete is averaged, the comparison is right.

Most run a stand-in for a recipe, which reads options as recipes do and makes scores from its settings; the shipped
grids run as miniatures with the real ones before a release.
"""

import csv
import fcntl
import importlib
import json
import os
import random
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from conftest import Done
from released import make_asvspoof2019, make_asvspoof2021_df, make_asvspoof2021_la
from scipy import stats
from test_recipes import make_small_wavlm
from warm import WarmPython

from spoofkit.data.manifest import read_manifest, write_manifest
from spoofkit.errors import SpoofkitError
from spoofkit.evaluation.bootstrap import Clusters, clusters_of, draw_clusters
from spoofkit.evaluation.compare import FIGURES
from spoofkit.evaluation.metrics import eer, min_dcf
from spoofkit.evaluation.paired import Measured, freedom_of_speakers, measure_seeds, paired_difference

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / "tools"

STAND_IN = """#!/usr/bin/env bash
# A recipe whose scores follow from its settings alone.
set -euo pipefail
corpus=                  # folder of eval.tsv
conf=conf.yaml           # settings
posttrain=true           # false: no stages 2 and 3
data=data                # manifests
exp=                     # results
encoder=                 # encoder
settings=                # settings
share=                   # share of the training data
device=auto              # device
dry_run=false            # only check
stage=1                  # first stage
stop_stage=6             # last stage
inputs=(corpus)
. TOOLS/parse_options.sh
input_paths conf "${inputs[@]}"
read_settings
enter_recipe data exp
[[ -z $share || $share =~ ^[0-9.]+$ ]] || { echo "--share is '$share'" >&2; exit 1; }
[[ $device =~ ^(auto|cpu)$ ]] || { echo "--device is '$device'" >&2; exit 1; }
if $dry_run; then exit 0; fi
if [[ -e $CALLS.slow ]]; then sleep 0.3; fi
begins() {
  stage "$1" "$2" || return 1
  echo "$1 $exp" >>"$CALLS"
  if [[ -e $CALLS.break && $exp == *$(cat "$CALLS.break")* && $1 == 4 ]]; then echo "out of memory" >&2; exit 1; fi
  if [[ -e $CALLS.kill ]]; then
    echo x >>"$CALLS.kill"
    if (($(wc -l <"$CALLS.kill") > 4)); then kill -KILL $PPID 0; fi
  fi
}
is_new() { [[ ! -e $1 ]] && mkdir -p "${1%/*}"; }
if begins 1 "data" && is_new "$data/eval.tsv"; then cp "$corpus/eval.tsv" "$data/eval.tsv"; fi
if $posttrain && begins 2 "mix lists" && is_new "$exp/posttrain/mix.tsv"; then echo >"$exp/posttrain/mix.tsv"; fi
if $posttrain && begins 3 "post-training" && is_new "$exp/posttrain/encoder/w"; then
  if [[ -e $CALLS.slow ]]; then sleep 1; fi
  cat "$exp/posttrain/mix.tsv" >"$exp/posttrain/encoder/w"
  printf '2026-11-29 1%s from step 0\\n' 0:00:00 3:00:00 >"$exp/posttrain/train.log"
fi
if begins 4 "fine-tuning" && is_new "$exp/finetune/model"; then
  [[ -z $encoder || -e $encoder/w ]]
  mkdir -p "$exp/finetune/frozen"
  printf '2026-11-29 0%s\\n' '1:00:00 from step 0' '1:15:00 step 3' >"$exp/finetune/frozen/train.log"
  printf '2026-11-29 1%s\\n' '0:00:00 from step 0' '0:30:00 step 5' '6:59:59 took over the lock' \\
    '7:00:00 from step 5' '8:00:00 step 9' >"$exp/finetune/train.log"
  echo >"$exp/finetune/model"
fi
if begins 5 "scores" && is_new "$exp/scores/eval.tsv"; then
  draw=$(echo "${overrides[*]/encoder.*}" "$share" | cksum | cut -d' ' -f1)
  awk -F'\\t' -v draw="$draw" 'BEGIN { OFS = "\\t"; srand(draw); print "filename", "cm-score" }
    /^u[0-9]/ { print $1, rand() + rand() + ($3 == "bonafide") * (0.4 + draw % 7 / 20) }
  ' "$data/eval.tsv" >"$exp/scores/eval.tsv"
fi
if begins 6 "report" && is_new "$exp/results/eval/eval.json"; then echo '{}' >"$exp/results/eval/eval.json"; fi
"""
GRID: dict[str, Any] = {
    "common": {"--conf": "conf.yaml"},
    "seeds": [0, 1],
    "sets": ["eval"],
    "control": "mean",
    "cells": {"mean": {"finetune.head": "mean"}, "lstm": {"finetune.head": "lstm"}},
    "hours": {"posttrain_step": 0.001, "finetune_step": 0.002, "evaluation": 0.1, "scores": 1},
}


@dataclass(frozen=True)
class Sweep:
    """A sweep with the stand-in for a recipe, in its own folder."""

    folder: Path
    python: WarmPython

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def start(self, grid: dict[str, Any], *options: object) -> "subprocess.Popen[str]":
        """Start tools/sweep.py from another folder."""
        path = self.folder / "grid.yaml"
        path.write_text(yaml.safe_dump({"recipe": str(self.folder / "recipe"), **grid}, sort_keys=False))
        command = [self.python.python, TOOLS / "sweep.py", path, "-o", self.out, "--corpus", self.folder, *options]
        return subprocess.Popen(
            [*map(str, command)], cwd=self.folder / "recipe", text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=self.python.environ | {"CALLS": str(self.folder / "calls")},
        )  # fmt: skip

    def run(self, grid: dict[str, Any], *options: object, code: int | None = 0) -> Done:
        """Run it to its end; `code` is the exit code that it must have, None of any."""
        process = self.start(grid, *options)
        out, err = process.communicate()
        assert code in (None, process.returncode), f"exit code {process.returncode}\n{out}\n{err}"
        return Done(process.returncode, out, err)

    def calls(self) -> list[str]:
        """Stage and folder of each stage that began since the last call."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return sorted(line.replace(f"{self.out}/", "") for line in lines)

    def rows(self) -> list[dict[str, str]]:
        """The table, but for what takes another time in each run."""
        rows = csv.DictReader((self.out / "sweep.tsv").read_text().splitlines(), delimiter="\t")
        return [{name: value for name, value in row.items() if name != "hours"} for row in rows]


@pytest.fixture
def sweep(tmp_path: Path, warm_python: WarmPython) -> Sweep:
    recipe = tmp_path / "recipe"
    recipe.mkdir()
    (recipe / "run.sh").write_text(STAND_IN.replace("TOOLS", str(TOOLS)))
    (recipe / "conf.yaml").write_text("finetune: {n_steps: 100, eval_every: 30}\n")
    table = pl.DataFrame(
        {
            "utt_id": [f"u{n:03d}" for n in range(240)],
            "path": [f"u{n:03d}.flac" for n in range(240)],
            "key": ["bonafide" if n % 3 == 0 else "spoof" for n in range(240)],
            "speaker": [f"s{n // 12:02d}" for n in range(240)],
            "attack": ["-" if n % 3 == 0 else f"A0{n % 3}" for n in range(240)],
            "codec": ["-"] * 240,
            "n_samples": [16000] * 240,
        }
    )
    write_manifest(tmp_path / "eval.tsv", tmp_path, table)
    return Sweep(tmp_path, warm_python)


# ---- What runs


def test_what_cells_share_runs_once_and_only_what_is_added_runs_later(sweep: Sweep) -> None:
    grid = GRID | {"cells": GRID["cells"] | {"direct": {"--posttrain": False}}}
    assert "8 runs" in sweep.run(grid, "--dry-run").stdout
    assert sweep.calls() == []
    (sweep.folder / "calls.slow").touch()  # so that a cell that does not wait for its post-training finds no encoder
    sweep.run(grid, "--jobs", 6)
    (sweep.folder / "calls.slow").unlink()
    calls = sweep.calls()
    cells = [f"{stage} cells/{name}/seed{seed}" for stage in (4, 5, 6) for name in grid["cells"] for seed in (0, 1)]
    assert [call for call in calls if "cells" in call] == sorted(cells)
    assert [call.split("/")[0] for call in calls if "cells" not in call] == [
        "1 data", "2 posttrain", "2 posttrain", "3 posttrain", "3 posttrain",
    ]  # fmt: skip
    before = sweep.rows()
    sweep.run(grid)
    assert sweep.calls() == []
    more = grid | {"seeds": [0, 1, 2], "cells": grid["cells"] | {"sls": {"finetune.head": "nes2net"}}}
    sweep.run(more)
    new = {call.partition(" ")[2] for call in sweep.calls()}
    assert {folder for folder in new if "cells" in folder} == {
        *(f"cells/{name}/seed2" for name in more["cells"]), "cells/sls/seed0", "cells/sls/seed1",
    }  # fmt: skip
    assert len([folder for folder in new if "posttrain" in folder]) == 1  # that of seed 2
    assert [row["cell"] for row in sweep.rows()] == [*more["cells"]]
    assert sweep.rows() != before


def test_a_sweep_that_is_killed_again_and_again_ends_with_the_same_table(sweep: Sweep) -> None:
    sweep.run(GRID)
    whole = sweep.rows()
    shutil.rmtree(sweep.out)
    sweep.calls()
    n_kills = 0
    while True:
        (sweep.folder / "calls.kill").write_text("")
        if sweep.run(GRID, code=None).returncode == 0:
            break
        n_kills += 1
        assert n_kills < 10
    assert n_kills >= 4
    assert sweep.rows() == whole


def test_a_failed_cell_is_named_and_not_averaged_and_the_same_command_runs_it_again(sweep: Sweep) -> None:
    (sweep.folder / "calls.break").write_text("lstm/seed1")
    done = sweep.run(GRID, code=1)
    assert "no figures of lstm: seed1 failed (out of memory" in done.stderr
    mean, lstm = sweep.rows()
    assert (mean["state"], float(mean["eer_official_percent"]) > 0) == ("done", True)
    assert lstm["state"].startswith("seed1 failed (out of memory")
    assert {value for name, value in lstm.items() if name.startswith(FIGURES)} == {""}
    assert "out of memory" in (sweep.out / "sweep.html").read_text()
    assert "lstm" in json.loads((sweep.out / "sweep.json").read_text())["missing"]
    (sweep.folder / "calls.break").unlink()
    sweep.calls()
    sweep.run(GRID)
    assert {call for call in sweep.calls() if "cells" in call} == {f"{n} cells/lstm/seed1" for n in (4, 5, 6)}
    assert sweep.rows()[1]["eer_official_percent_p"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"cells": {"mean": {"finetune.haed": "lstm"}}}, "cell mean: .*finetune.haed"),
        ({"cells": {"mean": {"--shaer": 0.2}}}, "--shaer"),
        ({"cells": {"mean": {"--share": "much"}}}, "--share is 'much'"),
        ({"cells": {"mean": {"--settings": "finetune.batch_size=8"}}}, "--settings: is not for a grid"),
        ({"common": {"--conf": "conf.yaml", "--overwrite": True}}, "--overwrite: is not for a grid"),
        ({"seed": [0]}, "seed.*did you mean seeds"),
        ({"control": "maen"}, "control: there is no cell maen"),
        ({"cells": {"mean": {}, "lstm": {}}}, "cell lstm: has the settings of mean"),
        ({"seeds": [0, 0]}, "seeds"),
        ({"vary": {"--share": [1], "mix.share": [[0.1, 0.3]]}}, "vary: share, share"),
    ],
)
def test_what_is_misspelt_is_refused_before_anything_runs(sweep: Sweep, change: dict[str, Any], named: str) -> None:
    done = sweep.run(GRID | change, code=1)
    assert re.search(named, done.stderr), done.stderr
    assert sweep.calls() == []
    assert not sweep.out.exists()


def test_a_cell_that_was_run_with_other_settings_is_refused(sweep: Sweep) -> None:
    sweep.run(GRID)
    changed = {"mean": {"finetune.head": "mean"}, "lstm": {"finetune.head": "attentive"}}
    assert "finetune.head: lstm there, attentive now" in sweep.run(GRID | {"cells": changed}, code=1).stderr
    assert "encoder_name: " in sweep.run(GRID, "--encoder", "elsewhere", code=1).stderr
    assert (
        "options.share: None there, 0.5 now"
        in sweep.run(GRID | {"common": {**GRID["common"], "--share": 0.5}}, code=1).stderr
    )


def test_an_option_that_is_no_path_stays_as_it_is_whatever_a_file_here_is_called(sweep: Sweep) -> None:
    (sweep.folder / "recipe/cpu").touch()  # the sweep is started there
    sweep.run(GRID, "--device", "cpu", "--dry-run")


def test_a_set_that_the_corpora_do_not_have_is_refused_before_anything_is_trained(sweep: Sweep) -> None:
    done = sweep.run(GRID | {"sets": ["evla"]}, code=1)
    assert re.search(r"sets: evla: .*eval\.tsv", done.stderr), done.stderr
    assert [call.split()[0] for call in sweep.calls()] == ["1"]


@pytest.mark.parametrize(("choice", "named"), [({"atack": "A01"}, "atack"), ({"attack": ["A01", "A09"]}, "A09")])
def test_a_pool_that_no_trial_is_in_is_refused_before_anything_is_trained(
    sweep: Sweep, choice: dict[str, Any], named: str
) -> None:
    done = sweep.run(GRID | {"pools": {"near": choice}}, code=1)
    assert "pools: near: " in done.stderr
    assert named in done.stderr
    assert [call.split()[0] for call in sweep.calls()] == ["1"]


def test_scores_of_other_data_are_not_compared(sweep: Sweep) -> None:
    sweep.run(GRID)
    scores = sweep.out / "cells/lstm/seed1/scores/eval.tsv"
    scores.with_suffix(".json").write_text(json.dumps({"manifest_sha256": "0" * 64}))
    done = sweep.run(GRID, "--report", code=1)
    assert f"{scores}: " in done.stderr


def test_a_run_whose_sweep_was_killed_is_waited_for(sweep: Sweep) -> None:
    """Its processes hold the lock of its folder, so that no second one trains there."""
    folder = sweep.out / "cells/lstm/seed1"
    folder.mkdir(parents=True)
    with open(folder / ".sweep_lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = sweep.start(GRID)
        assert process.stderr is not None
        assert any(line.startswith(f"{folder}: runs already") for line in process.stderr)
        assert [path.name for path in folder.iterdir()] == [".sweep_lock"]
    process.communicate()
    assert process.returncode == 0


def test_a_sweep_that_is_told_to_stop_passes_it_on_and_no_run_has_failed(sweep: Sweep) -> None:
    (sweep.folder / "calls.slow").touch()
    process = sweep.start(GRID)
    while not (sweep.folder / "calls").exists():
        time.sleep(0.02)
    process.terminate()
    assert "the same command resumes" in process.communicate()[1]
    assert process.returncode == 130
    assert not list(sweep.out.glob("**/failed.json"))
    (sweep.folder / "calls.slow").unlink()
    sweep.run(GRID)
    assert [row["state"] for row in sweep.rows()] == ["done", "done"]


# ---- Slurm

SBATCH = """#!/usr/bin/env bash
echo "$PWD" "$@" >>"$CALLS.sbatch"
if [[ "$*" == *"${SBATCH_REFUSES:-nothing}"* ]]; then echo "refused" >&2; exit 1; fi
echo "$((99 + $(wc -l <"$CALLS.sbatch")));cluster"
"""


def test_on_slurm_each_job_depends_on_the_one_before_and_none_is_queued_twice(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = sweep.folder / "bin"
    commands.mkdir()
    (commands / "sbatch").write_text(SBATCH)
    (commands / "squeue").write_text('#!/usr/bin/env bash\nif [[ -e $CALLS.queue ]]; then cat "$CALLS.queue"; fi\n')
    for path in commands.iterdir():
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    grid = GRID | {"seeds": [7], "cells": GRID["cells"] | {"direct": {"--posttrain": False}}}
    assert "recipe/slurm" in sweep.run(grid, "--slurm", code=1).stderr
    assert sweep.calls() == []
    (sweep.folder / "recipe/slurm").mkdir()
    for job in ("posttrain", "finetune", "score", "report"):
        (sweep.folder / f"recipe/slurm/{job}.sh").touch()
    sweep.run(grid, "--slurm")
    assert {call.split()[0] for call in sweep.calls()} == {"1", "2"}  # data and mix lists, here
    lines = (sweep.folder / "calls.sbatch").read_text().splitlines()
    jobs = [re.search(r"(?:afterok:(\d+) .*)?slurm/(\w+)\.sh .*--exp=(\S+)", line) for line in lines]
    found = [(match[1], match[2], match[3].replace(f"{sweep.out}/", "").split("/")[:2]) for match in jobs if match]
    assert [job for _, job, _ in found] == ["posttrain", *["finetune", "score", "report"] * 3]
    assert [after for after, _, _ in found] == [
        None, "100", "101", "102", "100", "104", "105", None, "107", "108",
    ]  # fmt: skip
    assert all(line.startswith(f"{sweep.folder}/recipe --parsable") for line in lines)
    (sweep.folder / "calls.queue").write_text("".join(f"{n}\n" for n in range(100, 110)))
    assert sweep.run(grid, "--slurm").stderr.count("already queued") == 4
    assert len((sweep.folder / "calls.sbatch").read_text().splitlines()) == len(lines)
    assert "not finished" in sweep.run(grid, "--report", code=1).stderr


# ---- The comparison


def test_hours_are_those_of_all_starts_without_the_pauses_between_them(sweep: Sweep) -> None:
    sweep.run(GRID)
    found = json.loads((sweep.out / "sweep.json").read_text())["rows"]
    # The head alone, the two starts of all, and a post-training, which paused.
    assert [row["hours"] for row in found] == [0.25 + 0.5 + 1 + 0] * 2


def test_a_post_training_that_no_cell_needs_any_more_is_not_repeated_and_hours_without_it_are_not_stated(
    sweep: Sweep,
) -> None:
    sweep.run(GRID)
    rows = sweep.rows()
    shutil.rmtree(sweep.out / "posttrain")
    sweep.calls()
    sweep.run(GRID)
    assert sweep.calls() == []
    assert sweep.rows() == rows
    assert [row["hours"] for row in json.loads((sweep.out / "sweep.json").read_text())["rows"]] == [None, None]


def test_of_one_speaker_single_trials_are_drawn_and_the_report_says_so(sweep: Sweep) -> None:
    manifest = read_manifest(sweep.folder / "eval.tsv")
    write_manifest(manifest.path, manifest.root, manifest.table.with_columns(speaker=pl.lit("s")), overwrite=True)
    done = sweep.run(GRID | {"seeds": [0]})
    assert re.search("one speaker.*240 single trials", done.stdout, re.S)
    assert 0 < float(sweep.rows()[1]["eer_official_percent_p"]) < 1


def measured(values: Sequence[float], n_replicates: int = 200, spread: float = 0.0, seed: int = 0) -> Measured:
    noise = np.random.default_rng(seed).normal(0, 1, n_replicates)
    noise = spread * (noise - noise.mean()) / noise.std(ddof=1)
    return Measured(list(values), np.add.outer(np.asarray(values, dtype=float), noise))


def test_where_speakers_do_not_matter_the_comparison_is_the_paired_t_test_of_the_seeds() -> None:
    control, other = [4.1, 5.0, 4.6, 5.3], [3.6, 4.9, 4.0, 4.7]
    found = paired_difference(measured(control), measured(other), 39)
    expected = stats.ttest_rel(other, control)
    assert found["p"] == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))


def test_with_one_seed_only_the_speakers_count() -> None:
    found = paired_difference(measured([5.0]), measured([4.0], spread=0.4), 20)
    assert found["p"] == pytest.approx(2 * stats.t.cdf(-1.0 / 0.4, 20))
    assert found["degrees_of_freedom"] == pytest.approx(20)


def clusters_with(n_bonafide: int, n_spoof: int, are_shared: bool = False) -> tuple[Clusters, np.ndarray]:
    """Two trials of each speaker of a class; the speakers of both classes are others, or the same."""
    speaker = np.concatenate([np.arange(n_bonafide), np.arange(n_spoof) + (0 if are_shared else n_bonafide)])
    number, is_bonafide = np.repeat(speaker, 2), np.repeat([True, False], [2 * n_bonafide, 2 * n_spoof])
    return Clusters(number, int(number.max()) + 1, "speaker", ""), is_bonafide


def test_the_class_with_fewer_speakers_decides_the_degrees_of_freedom() -> None:
    assert freedom_of_speakers(*clusters_with(17, 3)) == pytest.approx(
        (1 / 17 + 1 / 3) ** 2 / (1 / 17**2 / 16 + 1 / 3**2 / 2)
    )
    assert 2 < freedom_of_speakers(*clusters_with(1000, 3)) < 2.1  # Welch's least: those of the smaller class
    assert freedom_of_speakers(*clusters_with(17, 17)) == pytest.approx(32)  # and most: those of both
    assert freedom_of_speakers(*clusters_with(17, 17, are_shared=True)) == 16
    assert freedom_of_speakers(*clusters_with(2, 1)) >= 1


def test_equal_systems_do_not_differ_too_often_where_a_pool_has_few_voices() -> None:
    n_bonafide, n_spoof = 17, 3
    rng, n_each, found = np.random.default_rng(0), 20, []
    number = np.repeat(np.arange(n_bonafide + n_spoof), n_each)
    clusters, is_bonafide = Clusters(number, n_bonafide + n_spoof, "speaker", ""), number < n_bonafide
    table = pl.DataFrame({"key": np.where(is_bonafide, "bonafide", "spoof")})
    for pair in range(120):
        voices = rng.normal(0, 0.7, (3, clusters.n_clusters))[:, number]  # common, and those of either system
        scores = [voices[0] + own + 1.5 * is_bonafide + rng.normal(0, 1, number.size) for own in voices[1:]]
        draws = draw_clusters(clusters.n_clusters, 200, pair)
        one, other = (measure_seeds([score], table, clusters, draws)[FIGURES[0]] for score in scores)
        with suppress(SpoofkitError):  # of three voices none is in some draws
            found.append(paired_difference(one, other, freedom_of_speakers(clusters, is_bonafide))["p"])
    assert len(found) > 80
    assert np.mean(np.array(found) < 0.05) < 0.06


def test_cells_without_an_error_are_not_compared() -> None:
    with pytest.raises(SpoofkitError, match="no trial is an error in either"):
        paired_difference(measured([0.0, 0.0]), measured([0.0, 0.0]), 20)


def test_both_variances_are_added() -> None:
    found = paired_difference(measured([5.0, 5.2, 5.4]), measured([4.0, 4.8, 4.4], spread=0.3), 30)
    seeds = np.var([-1.0, -0.4, -1.0], ddof=1) / 3
    error = (0.3**2 + seeds) ** 0.5
    freedom = (0.3**2 + seeds) ** 2 / (0.3**4 / 30 + seeds**2 / 2)
    assert found["p"] == pytest.approx(2 * stats.t.cdf(-0.8 / error, freedom))


def test_equal_systems_do_not_differ_and_figures_are_those_of_the_official_functions() -> None:
    rng = np.random.default_rng(0)
    table = pl.DataFrame({"key": ["bonafide", "spoof"] * 100, "speaker": [f"s{n % 20}" for n in range(0, 400, 2)],
                          "attack": ["-"] * 200})  # fmt: skip
    scores = [rng.normal(0, 1, 200) + np.tile([1, 0], 100) for _ in range(2)]
    clusters = clusters_of(table)
    found = measure_seeds(scores, table, clusters, draw_clusters(clusters.n_clusters, 50))
    for figure in FIGURES:
        assert paired_difference(found[figure], found[figure], 19) | {"degrees_of_freedom": None} == {
            "difference": 0, "low": 0, "high": 0, "p": 1.0, "degrees_of_freedom": None,
        }  # fmt: skip
    for score, value, dcf in zip(scores, found[FIGURES[0]].values_S, found[FIGURES[1]].values_S, strict=True):
        assert value == 100 * eer(score[::2], score[1::2]).eer
        assert dcf == min_dcf(score[::2], score[1::2])


def holm_by_closed_testing(p_values: Sequence[float]) -> list[float]:
    """The largest Bonferroni p value of any intersection of hypotheses that holds this one."""
    places = range(len(p_values))
    subsets = [set(some) for n in places for some in combinations(places, n + 1)]
    return [
        max(min(1.0, len(some) * min(p_values[other] for other in some)) for some in subsets if place in some)
        for place in places
    ]


def test_p_values_are_corrected_over_the_cells_and_one_that_is_missing_counts(sweep: Sweep) -> None:
    heads = ["mean", "lstm", "attentive", "nes2net", "ecapa"]
    grid = GRID | {"cells": {head: {"finetune.head": head} for head in heads}}
    (sweep.folder / "calls.break").write_text("nes2net/seed0")
    sweep.run(grid, code=1)
    rows = {row["cell"]: row for row in sweep.rows()}
    compared = ["lstm", "attentive", "ecapa"]
    p_values = [float(rows[name]["eer_official_percent_p"]) for name in compared]
    assert [float(rows[name]["eer_official_percent_p_holm"]) for name in compared] == pytest.approx(
        holm_by_closed_testing([*p_values, 1.0])[:3]
    )
    assert rows["mean"]["eer_official_percent_p"] == rows["nes2net"]["eer_official_percent_p_holm"] == ""


def test_cells_are_compared_at_the_same_value_of_what_varies(sweep: Sweep) -> None:
    grid = GRID | {"vary": {"--share": [0.5, 1.0]}, "seeds": [0]}
    sweep.run(grid)
    rows = {(row["cell"], row["share"]): row for row in sweep.rows()}
    assert len(rows) == 4
    for share in ("0.5", "1.0"):
        control, other = rows["mean", share], rows["lstm", share]
        difference = float(other["eer_official_percent"]) - float(control["eer_official_percent"])
        assert float(other["eer_official_percent_difference"]) == pytest.approx(difference)
        assert control["eer_official_percent_difference"] == ""
    assert (sweep.out / "cells/lstm/share=0.5/seed0/scores/eval.tsv").exists()
    assert len(list((sweep.out / "posttrain").iterdir())) == 1  # a share is of the data of fine-tuning
    assert r"\begin{tabular}" in (sweep.out / "sweep.tex").read_text()
    assert "<svg" in (sweep.out / "sweep.html").read_text()


def test_a_pool_has_the_figures_of_its_spoofs_with_all_bona_fide(sweep: Sweep) -> None:
    sweep.run(GRID | {"pools": {"first": {"attack": "A01"}, "both": {"attack": ["A01", "A02"]}}})
    rows = {(row["set"], row["cell"]): row for row in sweep.rows()}
    assert {name for name, _ in rows} == {"eval", "eval first", "eval both"}
    figures = [name for name in rows["eval", "lstm"] if name != "set"]
    assert [rows["eval both", "lstm"][name] for name in figures] == [rows["eval", "lstm"][name] for name in figures]
    table = read_manifest(sweep.folder / "eval.tsv").table
    for seed in GRID["seeds"]:
        scores = pl.read_csv(sweep.out / f"cells/lstm/seed{seed}/scores/eval.tsv", separator="\t")
        trials = scores.join(table, left_on="filename", right_on="utt_id").filter(pl.col("attack") != "A02")
        bonafide, spoof = (trials.filter(pl.col("key") == key)["cm-score"].to_numpy() for key in ("bonafide", "spoof"))
        found = json.loads(rows["eval first", "lstm"]["eer_official_percent_of_seeds"])[seed]
        assert found == pytest.approx(100 * eer(bonafide, spoof).eer)
    assert (sweep.out / "sweep.html").read_text().count("eval first") >= 2  # in the table and over its panel


def test_a_pool_takes_attacks_of_spoofs_and_every_other_column_of_both_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(TOOLS)
    rows = [("bonafide", "-", "-"), ("bonafide", "-", "C01"), ("spoof", "A01", "-"), ("spoof", "A01", "C01"),
            ("spoof", "A02", "-")]  # fmt: skip
    table = pl.DataFrame(rows, schema=["key", "attack", "codec"], orient="row").with_columns(
        utt_id=pl.Series([f"u{place}" for place in range(len(rows))]), speaker=pl.lit("s"), n_samples=16000
    )
    table = table.with_columns(path=pl.col("utt_id") + ".flac")
    write_manifest(tmp_path / "eval.tsv", tmp_path, table)
    pools = {"first": {"attack": "A01"}, "plain": {"attack": "A01", "codec": "-"}, "coded": {"codec": "C01"}}
    sweep_grid = importlib.import_module("sweep_grid")
    grid = sweep_grid.Grid(**GRID | {"recipe": "egs/mini", "pools": pools})
    manifest = read_manifest(tmp_path / "eval.tsv")
    found = {name: sweep_grid.trials_of(grid, manifest, name).nonzero()[0].tolist() for name in pools}
    assert found == {"first": [0, 1, 2, 3], "plain": [0, 2], "coded": [1, 3]}
    write_manifest(tmp_path / "uncoded.tsv", tmp_path, table.filter(pl.col("utt_id") != "u1"))
    with pytest.raises(SpoofkitError, match="pools: coded: holds no bonafide"):
        sweep_grid.trials_of(grid, read_manifest(tmp_path / "uncoded.tsv"), "coded")


# ---- Before a release


@pytest.mark.release
def test_a_sweep_that_is_killed_at_ten_random_moments_ends_with_the_same_table(sweep: Sweep) -> None:
    sweep.run(GRID)
    whole = sweep.rows()
    shutil.rmtree(sweep.out)
    (sweep.folder / "calls.slow").touch()
    rng = random.Random(0)
    for _ in range(10):
        process = sweep.start(GRID, "--jobs", 2)
        time.sleep(rng.uniform(0.2, 1.5))
        process.kill()  # what it has started goes on, or is killed halfway
        if rng.random() < 0.5:
            for path in sweep.out.glob("**/.sweep_lock"):
                subprocess.run(["fuser", "-k", str(path)], capture_output=True)
        process.communicate()
    sweep.run(GRID)
    assert sweep.rows() == whole


SHIPPED = sorted(path.relative_to(ROOT) for path in ROOT.glob("egs/*/sweeps/*.yaml"))
SMALL = {"encoder.n_layers": 2, "encoder.lora.rank": 4, "crop_samples": 16000, "mix.n_train": 16, "mix.n_dev": 8}
for _stage in ("posttrain", "finetune"):
    SMALL |= {f"{_stage}.n_steps": 2, f"{_stage}.batch_size": 8, f"{_stage}.micro_batch_size": 4}
    SMALL |= {f"{_stage}.eval_every": 2}
OF_FINETUNING = {name: value for name, value in SMALL.items() if not name.startswith(("mix.", "posttrain."))}


def miniature(path: Path, second: str) -> dict[str, Any]:
    """A shipped grid with its control and one other cell, two seeds, and settings that a CPU runs in seconds."""
    grid: dict[str, Any] = yaml.safe_load((ROOT / path).read_text())
    chosen = [grid["control"], second]
    grid["cells"] = {name: {key: value for key, value in grid["cells"][name].items() if "n_steps" not in key}
                     for name in chosen}  # fmt: skip
    grid["seeds"] = [0, 1]
    if "posttraining" in grid:
        grid["common"] |= OF_FINETUNING
        grid["posttraining"] |= SMALL
    else:
        grid["common"] |= SMALL
    if "vary" in grid:
        grid["vary"] = {"--share": [0.5, 1.0]}
    if "pools" in grid:
        grid["pools"] = {"all": {"attack_tag": "AC1"}}  # the miniature has one tag
    return grid


CASES = {"mix_share": ("share_50_70", 4), "heads": ("lstm", 2), "lora_targets": ("attention", 4),
         "controls": ("utterances", 4), "low_resource": ("mix_frame", 2), "mixes": ("faded", 4)}  # fmt: skip


@pytest.mark.release
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parts[1]}-{path.stem}")
def test_a_miniature_of_each_shipped_grid_runs_from_corpus_to_table(
    path: Path, corpus: Path, warm_python: WarmPython, tmp_path: Path
) -> None:
    second, n_posttrainings = CASES[path.stem]
    grid = miniature(path, second)
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid, sort_keys=False))
    options = ["--corpus", corpus, "--encoder", make_small_wavlm(tmp_path / "wavlm"), "--data", tmp_path / "data"]
    if grid["recipe"] == "egs/asvspoof2021":
        options += ["--la19", make_asvspoof2019(tmp_path / "LA19")]
        options += ["--la21", make_asvspoof2021_la(tmp_path / "LA21")]
        options += ["--df21", make_asvspoof2021_df(tmp_path / "DF21")]
    options += ["--partial", "--device", "cpu", "--workers", 0, "-o", tmp_path / "out"]
    command = [warm_python.python, TOOLS / "sweep.py", tmp_path / "grid.yaml", *options]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=warm_python.environ)
    logs = "\n".join(log.read_text()[-2000:] for log in tmp_path.glob("out/**/run.log"))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{logs}"
    assert len(list((tmp_path / "out/posttrain").iterdir())) == n_posttrainings
    rows = json.loads((tmp_path / "out/sweep.json").read_text())["rows"]
    assert {row["cell"] for row in rows} == {grid["control"], second}
    assert len(rows) == 2 * len(grid["sets"]) * (2 if "vary" in grid else 1) * (2 if "pools" in grid else 1)
    for row in rows:
        assert row["state"] == "done"
        assert len(row["eer_official_percent_of_seeds"]) == 2
        folder = tmp_path / "out/cells" / row["cell"] / (f"share={row['share']}" if "vary" in grid else "")
        for seed, value in zip((0, 1), row["eer_official_percent_of_seeds"], strict=True):
            of_recipe = json.loads((folder / f"seed{seed}/results" / row["set"].split()[0] / "eval.json").read_text())
            assert value == pytest.approx(of_recipe["eer_official_percent"])


def test_every_shipped_grid_is_valid_and_costs_what_the_docs_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers of docs/sweeps.md are those of the plan."""
    monkeypatch.syspath_prepend(TOOLS)
    sweep_plan = importlib.import_module("sweep_plan")
    lines = (ROOT / "docs/sweeps.md").read_text().splitlines()
    for path in SHIPPED:
        plan = sweep_plan.make_plan(ROOT / path, Path("/nowhere"), {}, 2, is_checked=False)
        n_cells = len(plan.runs) - len(plan.posttrainings)
        numbers = f"| {len(plan.posttrainings)} | {n_cells} | {sum(run.hours for run in plan.runs):.0f} |"
        (line,) = [line for line in lines if f"(../{path})" in line]
        assert line.endswith(numbers)


def test_runs_come_in_the_order_of_the_grid_each_after_the_post_training_that_it_is_the_first_to_need(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(TOOLS)
    sweep_plan = importlib.import_module("sweep_plan")
    plan = sweep_plan.make_plan(ROOT / "egs/asvspoof5/sweeps/heads.yaml", Path("/nowhere"), {}, 2, is_checked=False)
    seeds, heads = plan.grid.seeds, [cell.parts[0] for cell, _ in plan.cells]
    firsts = [run for seed in seeds for run in ("posttrain", f"{heads[0]}/seed{seed}")]
    others = [f"{head}/seed{seed}" for head in heads[1:] for seed in seeds]
    names = [
        "posttrain" if run in plan.posttrainings else "/".join(run.folder.relative_to("/nowhere/cells").parts)
        for run in plan.left
    ]
    assert names == firsts + others
