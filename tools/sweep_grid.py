"""Read a grid of experiments: what it may hold, and its cells at each value of what varies."""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field, ValidationError, model_validator

from spoofkit.config import parse_yaml
from spoofkit.data.manifest import KEYS, Manifest
from spoofkit.data.settings import Positive, Settings
from spoofkit.errors import SpoofkitError
from spoofkit.files import read_text

Keys = dict[str, Any]
"""Options of run.sh (`--share`) and settings (`finetune.head`) with their values."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
SPOOFS_COLUMNS = ("attack", "attack_tag")
"""Columns that say nothing of bona fide trials."""


class Hours(Settings):
    """Estimated hours of one GPU."""

    posttrain_step: Positive
    finetune_step: Positive
    evaluation: Positive
    """One evaluation on the development set in fine-tuning."""
    scores: Positive
    """Stages 5 and 6."""


class Grid(Settings):
    """A grid, as its YAML file states it."""

    recipe: str
    """Folder of run.sh, below the clone."""
    common: Keys
    """What all runs have, `--conf` among it."""
    posttraining: Keys | None = None
    """`recipe` and what its runs have, if another recipe does the post-training."""
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    sets: Annotated[list[str], Field(min_length=1)]
    """SET of scores/SET.tsv: the sets whose figures count."""
    pools: dict[str, dict[str, str | list[str]]] = Field(default={})
    """Trials whose figures are given besides those of all: for some columns of the manifest, the values that count. An
    attack's column (SPOOFS_COLUMNS) chooses among spoofs, and any other among all trials."""
    control: str
    """The cell that the others are compared with."""
    cells: dict[str, Keys]
    """What each cell has."""
    vary: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default={})
    """What all cells are run with each value of; cells are compared at the same value."""
    hours: Hours

    @property
    def axes(self) -> list[str]:
        """What the keys of `vary` are called in the table: the last parts of their names."""
        return [key.removeprefix("--").rpartition(".")[2] for key in self.vary]

    @model_validator(mode="after")
    def _names_fit(self) -> "Grid":
        if self.control not in self.cells:
            raise ValueError(f"control: there is no cell {self.control}, expected one of {', '.join(self.cells)}")
        if wrong := [name for name in self.cells if not NAME.fullmatch(name)]:
            raise ValueError(f"cells: {wrong[0]!r} becomes the name of a folder, expected letters, digits, _ . + -")
        if len(set(self.axes)) < len(self.axes) or set(self.axes) & {"seed", "set", "cell"}:
            raise ValueError(f"vary: {', '.join(self.axes)} name columns of the table, expected others, each once")
        if wrong := [name for name, choice in self.pools.items() if not NAME.fullmatch(name) or not choice]:
            raise ValueError(
                f"pools: {wrong[0]!r}: expected a name of letters, digits, _ . + - and `column: value` lines"
            )
        for name in ("seeds", "sets"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"{name}: found a value twice, expected each once")
        return self


@dataclass(frozen=True)
class Cell:
    """A cell at one value of everything that varies."""

    name: str
    at: Mapping[str, Any]
    """Those values, by the grid's axes."""
    keys: Keys

    @property
    def parts(self) -> tuple[str, ...]:
        """Its name and what it is at, such as `share=0.2`: the folders of its runs."""
        return (self.name, *(f"{name}={in_name(value)}" for name, value in self.at.items()))


def in_name(value: Any) -> str:
    """Return a value as part of a name.

    >>> in_name(0.2), in_name([0.1, 0.3]), in_name("a/b")
    ('0.2', '0.1-0.3', 'a-b')
    """
    return re.sub(r"[^A-Za-z0-9_.+]+", "-", text_of(value)).strip("-")


def trials_of(grid: Grid, manifest: Manifest, pool: str | None) -> npt.NDArray[np.bool_]:
    """Return which rows of a manifest are in a pool of the grid; None is all.

    Raises:
        SpoofkitError: the manifest has no such column, no spoofed trial has one of the values, or a class is missing.
    """
    chosen, is_bonafide = pl.lit(True), pl.col("key") == "bonafide"
    for column, values in grid.pools[pool].items() if pool else ():
        where = f"pools: {pool}: {column}"
        if column not in manifest.table.columns:
            raise SpoofkitError(
                f"{where}: is no column of {manifest.path}, which has {', '.join(manifest.table.columns)}"
            )
        wanted = [values] if isinstance(values, str) else values
        found = manifest.table.filter(pl.col("key") == "spoof")[column].cast(pl.String).unique()
        if missing := sorted(set(wanted) - set(found)):
            raise SpoofkitError(
                f"{where}: no spoofed trial of {manifest.path} has {missing[0]}, expected some of "
                f"{', '.join(sorted(found)[:20])}"
            )
        is_wanted = pl.col(column).cast(pl.String).is_in(wanted)
        chosen &= is_wanted | is_bonafide if column in SPOOFS_COLUMNS else is_wanted
    table = manifest.table.with_columns(is_in=chosen)
    if lost := sorted(set(KEYS) - set(table.filter("is_in")["key"])):
        where = f"pools: {pool}" if pool else "sets"
        raise SpoofkitError(
            f"{where}: holds no {lost[0]} trial of {manifest.path}, expected both classes; change its values"
        )
    return table["is_in"].to_numpy()


def read_grid(path: Path) -> Grid:
    """Read a grid.

    Raises:
        SpoofkitError: it is not valid YAML, or has an unknown or missing key or a wrong value.
    """
    values = parse_yaml(read_text(path), str(path))
    try:
        return Grid.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        problem = error.errors()[0]
        *above, last = map(str, problem["loc"] or ("",))
        known = list((Hours if above else Grid).model_fields)
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            close = difflib.get_close_matches(last, known, n=1)
            message = f"unknown key; {f'did you mean {close[0]}?' if close else 'expected one of ' + ', '.join(known)}"
        if problem["type"] in ("dict_type", "model_type"):
            message = f"found {problem['input'] or 'nothing'}, expected `key: value` lines, or {{}} for none"
        raise SpoofkitError(f"{path}: {'.'.join([*above, last])}: {message}".replace(": : ", ": ")) from error


def cells_of(grid: Grid) -> Iterator[Cell]:
    """Yield the cells of a grid."""
    for values in product(*grid.vary.values()):
        at, varied = (dict(zip(names, values, strict=True)) for names in (grid.axes, grid.vary))
        for name, keys in grid.cells.items():
            yield Cell(name, at, keys | varied)


def text_of(value: Any) -> str:
    """Return a value as run.sh and YAML read it: text as it is, anything else as JSON without spaces."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
