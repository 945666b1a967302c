"""Plan the runs of a grid of experiments: data, the post-trainings that cells share, and the cells themselves."""

import hashlib
import json
import math
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep_grid import Cell, Grid, Keys, cells_of, read_grid, text_of, trials_of

from spoofkit.config import OF_STAGE, differences, load_config
from spoofkit.data.manifest import read_keyed_manifest
from spoofkit.errors import SpoofkitError
from spoofkit.files import read_json, read_text
from spoofkit.settings import Config
from spoofkit.suggestions import nearest_name

ROOT = Path(__file__).resolve().parents[1]
OF_RESULT = {"posttrain": (), "finetune": ("score-args",)}
"""Options of run.sh that change what a run leaves, although no setting of that stage does."""
OWN_OPTIONS = ("exp", "conf", "stage", "stop-stage", "dry-run", "overwrite", "posttrain", "share")
"""Options of run.sh that the sweep sets, or that belong in the grid."""


@dataclass(frozen=True)
class Run:
    """Some stages of a recipe in one experiment folder."""

    folder: Path
    recipe: Path
    options: tuple[str, ...]
    """Of run.sh, but for stages, folder and an encoder that another run makes."""
    stages: tuple[int, int]
    products: tuple[Path, ...] = ()
    """What it leaves; without any it is repeated in each sweep, and skips what is up to date."""
    record: Keys | None = None
    """What its result depends on, for run.json."""
    needs: "Run | None" = None
    """The post-training that makes its encoder."""
    hours: float = 0.0

    @property
    def is_done(self) -> bool:
        """Whether all it leaves is there."""
        return bool(self.products) and all(path.exists() for path in self.products)

    @property
    def experiment(self) -> list[str]:
        """Its options of run.sh, without stages."""
        # A revision is that of the encoder that was post-trained.
        encoder = [f"--encoder={self.needs.products[0]}", "--settings=encoder.revision=null"] if self.needs else []
        return [*self.options, *encoder, f"--exp={self.folder}"]

    def command(self, first: int, last: int) -> list[str]:
        """Return the command line of some of its stages."""
        return ["bash", str(self.recipe / "run.sh"), *self.experiment, f"--stage={first}", f"--stop-stage={last}"]


@dataclass(frozen=True)
class Plan:
    """A sweep: each list of runs needs those before it."""

    grid: Grid
    out: Path
    data: list[Run]
    posttrainings: list[Run]
    cells: list[tuple[Cell, list[Run]]]
    """Each cell's runs, a seed each, in the order of the grid's seeds."""
    manifests: dict[str, Path]
    """That of each of the grid's sets."""

    @property
    def runs(self) -> list[Run]:
        """All runs that leave something."""
        return [*self.posttrainings, *(run for _, runs in self.cells for run in runs)]

    @property
    def left(self) -> list[Run]:
        """Those that are still to run, a cell after the other: cells that are not done, after what these lack."""
        cells = [run for _, runs in self.cells for run in runs if not run.is_done]
        with_needs = (one for run in cells for one in (run.needs, run) if one is not None and not one.is_done)
        return list({run.folder: run for run in with_needs}.values())


def make_plan(path: Path, out: Path | None, given: Mapping[str, str], stage: int, is_checked: bool) -> Plan:
    """Plan a sweep, and check its settings, its options, and what its stages read.

    Args:
        path: The grid.
        out: Folder of the sweep. Default: one named after the grid, beside the recipe's other experiments.
        given: Options of run.sh from the command line, by name; each goes to the recipes that have it.
        stage: 2 if the manifests exist already, else 1.
        is_checked: Whether run.sh checks its options too.

    Raises:
        SpoofkitError: something is misspelt or missing, or a folder holds a run of other settings.
    """
    grid = read_grid(path)
    out = (out or ROOT / grid.recipe / "exp/sweeps" / path.stem).absolute()
    options = _options_by_recipe(grid, given)
    cells: list[tuple[Cell, list[Run]]] = []
    for cell in cells_of(grid):
        where = f"{path}: cell {', '.join(cell.parts)}"
        if cell.parts in [other.parts for other, _ in cells]:
            raise SpoofkitError(f"{where}: is there twice; rename one")
        try:
            runs = [_cell_run(grid, cell, seed, options, out) for seed in grid.seeds]
        except SpoofkitError as error:
            raise SpoofkitError(f"{where}: {error}") from error
        if alike := [other for other, others in cells if others[0].record == runs[0].record]:
            raise SpoofkitError(f"{where}: has the settings of {', '.join(alike[0].parts)}; change or remove one")
        cells.append((cell, runs))
    posttrainings = {run.needs.folder: run.needs for _, runs in cells for run in runs if run.needs}
    data = []
    for name, of_recipe in options.items() if stage == 1 else ():
        all_given = (*(f"--{option}={value}" for option, value in of_recipe.items()), "--posttrain=false")
        data.append(Run(out / "data" / Path(name).name, ROOT / name, all_given, (1, 1)))
    folder = Path(options[grid.recipe].get("data", ROOT / grid.recipe / "data"))
    manifests = {name: folder / f"{name}.tsv" for name in grid.sets}
    plan = Plan(grid, out, data, [*posttrainings.values()], cells, manifests)
    for run in plan.runs:
        _require_same(run)
    if is_checked:
        _check(plan.runs, stage)
    return plan


def require_manifests(plan: Plan) -> None:
    """Refuse a set that no manifest is of, or a pool without trials, before anything is trained.

    Raises:
        SpoofkitError: there is one.
    """
    for name, path in plan.manifests.items():
        if not path.exists():
            raise SpoofkitError(
                f"sets: {name}: there is no {path}{nearest_name(path)}; fix the name, or prepare its corpus by the "
                "options of run.sh"
            )
        for pool in plan.grid.pools:
            trials_of(plan.grid, read_keyed_manifest(path), pool)


def _options_by_recipe(grid: Grid, given: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the options that each recipe of a grid takes from the command line, with absolute paths.

    Raises:
        SpoofkitError: an option is none of any recipe, or the sweep's own.
    """
    names = dict.fromkeys([grid.recipe, (grid.posttraining or {}).get("recipe", grid.recipe)])
    known = {name: re.findall(r"^  --(\S+)", _ask(["bash", ROOT / name / "run.sh", "--help"]), re.M) for name in names}
    for option in given:
        if option in OWN_OPTIONS:
            raise SpoofkitError(f"--{option}: is set by the sweep or belongs in its grid; leave it out")
        if not any(option in options for options in known.values()):
            raise SpoofkitError(f"--{option}: is no option of sweep.py or {' or '.join(names)}; see their --help")
    places = {"data", "encoder"}.union(*(_inputs(ROOT / name / "run.sh") for name in names))
    absolute = {**given}
    for option in places & given.keys():
        if given[option] and (option == "data" or Path(given[option]).exists()):
            absolute[option] = str(Path(given[option]).absolute())
    return {name: {option: absolute[option] for option in given if option in known[name]} for name in names}


def _inputs(path: Path) -> list[str]:
    """Return the options of a run.sh that it declares to be folders or files to read; see tools/stages.sh."""
    declared = re.findall(r"\b(?:inputs|optional)=\((.*?)\)", read_text(path))
    return " ".join(declared).replace("_", "-").split()


def _cell_run(grid: Grid, cell: Cell, seed: int, options: Mapping[str, dict[str, str]], out: Path) -> Run:
    """Plan a cell's run with one seed, and the post-training that it needs."""
    keys = {**grid.common, **cell.keys}
    needs = None
    if keys.pop("--posttrain", True):
        if grid.posttraining is None:
            needs = _posttraining(grid, grid.recipe, keys, seed, options, out)
        else:
            if lost := [key for key in keys if key.startswith(("mix.", "posttrain."))]:
                raise SpoofkitError(f"{lost[0]}: has no effect here; write it into `posttraining`")
            recipe = {**grid.posttraining}
            needs = _posttraining(grid, recipe.pop("recipe"), recipe, seed, options, out)
    words, record, config = _experiment(grid.recipe, keys, seed, options[grid.recipe], "finetune")
    trainings = [one for one in (config.finetune.frozen(), config.finetune) if one]
    n_evaluations = sum(math.ceil(one.n_steps / one.eval_every) for one in trainings if one.eval_every)
    n_steps = sum(one.n_steps for one in trainings)
    hours = n_steps * grid.hours.finetune_step + n_evaluations * grid.hours.evaluation + grid.hours.scores
    folder = out.joinpath("cells", *cell.parts, f"seed{seed}")
    products = tuple(
        folder / file for name in grid.sets for file in (f"scores/{name}.tsv", f"results/{name}/eval.json")
    )
    record["posttraining"] = needs.folder.name if needs else None
    return Run(folder, ROOT / grid.recipe, (*words, "--posttrain=false"), (4, 6), products, record, needs, hours)


def _posttraining(
    grid: Grid, recipe: str, keys: Keys, seed: int, options: Mapping[str, dict[str, str]], out: Path
) -> Run:
    """Plan a post-training; what its result depends on names its folder, so that equal ones are one."""
    of_all = {key: value for key, value in keys.items() if key != "--share"}  # which is of the training data of stage 4
    words, record, config = _experiment(recipe, of_all, seed, options[recipe], "posttrain")
    name = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:10]
    folder = out / "posttrain" / name
    hours = config.posttrain.n_steps * grid.hours.posttrain_step
    return Run(folder, ROOT / recipe, words, (2, 3), (folder / "posttrain/encoder",), record, hours=hours)


def _experiment(
    recipe: str, keys: Keys, seed: int, given: Mapping[str, str], stage: str
) -> tuple[tuple[str, ...], Keys, Config]:
    """Return the options of run.sh for an experiment, what the result of a stage depends on, and the settings."""
    of_grid = {key[2:]: text_of(value) for key, value in keys.items() if key.startswith("--")}
    if "conf" not in of_grid:
        raise SpoofkitError("--conf: is missing, expected a file of settings; write it into `common`")
    for name in of_grid:
        if name == "settings" or (name in OWN_OPTIONS and name not in ("conf", "posttrain", "share")):
            instead = "write each setting by its name" if name == "settings" else "the sweep sets it, so leave it out"
            raise SpoofkitError(f"--{name}: is not for a grid, expected other options of run.sh; {instead}")
    conf = ROOT / recipe / of_grid.pop("conf")
    words = [f"{key}={text_of(value)}" for key, value in keys.items() if not key.startswith("--")] + [f"seed={seed}"]
    if spaced := [word for word in words if re.search(r"\s", word)]:
        raise SpoofkitError(f"{spaced[0]}: has a space, which run.sh takes for the end of a setting; remove it")
    encoder = of_grid.get("encoder", given.get("encoder"))
    before, after = (["encoder.revision=null"], [f"encoder.name={json.dumps(encoder)}"]) if encoder else ([], [])
    words = [*given.get("settings", "").split(), *words]
    config = load_config(conf, [*before, *words, *after])
    options = [f"--{name}={value}" for name, value in {**given, **of_grid}.items() if name != "settings"]
    # Without defaults, so that a setting of a later version changes nothing.
    record = config.model_dump(mode="json", include=OF_STAGE[stage], exclude_defaults=True)
    of_result = {name: given[name] for name in OF_RESULT[stage] if name in given}
    record |= {"recipe": recipe, "encoder_name": config.encoder.name, "options": of_result | of_grid}
    return (f"--conf={conf}", *options, f"--settings={' '.join(words)}"), record, config


def _require_same(run: Run) -> None:
    """Refuse a folder that holds a run of other settings.

    Raises:
        SpoofkitError: it does.
    """
    path = run.folder / "run.json"
    changed = differences(read_json(path), run.record) if path.exists() else []
    if changed:
        raise SpoofkitError(
            f"{run.folder}: holds a run of other settings ({'; '.join(changed[:3])}); restore them in the grid, rename "
            "the cell, or remove the folder to run it again"
        )


def _check(runs: list[Run], stage: int) -> None:
    """Have run.sh check the options of all runs; settings are checked already.

    Raises:
        SpoofkitError: it refuses some.
    """
    of_options = {}
    for run in runs:
        options = tuple(word for word in run.options if not word.startswith("--settings="))
        of_options.setdefault((run.recipe, options), run)
    for run in of_options.values():
        stages = [f"--stage={1 if stage == 1 else run.stages[0]}", f"--stop-stage={run.stages[1]}"]
        _ask(["bash", run.recipe / "run.sh", *run.options, *stages, "--dry-run"])


def _ask(command: list[Any]) -> str:
    """Run a program that answers at once; what it prints.

    Raises:
        SpoofkitError: it refuses; with its last line.
    """
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        *_, last = f"{command[1]}: exit code {done.returncode}\n{done.stderr.strip()}".strip().splitlines()
        raise SpoofkitError(last.removeprefix("spoofkit: error: "))
    return done.stdout
