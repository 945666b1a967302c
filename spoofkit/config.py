"""Reading an experiment's settings: one YAML file, strictly checked, which `--set section.key=value` overrides.

Unknown keys, repeated keys and values out of range are refused by name. What the settings are: `spoofkit.settings`.
"""

import difflib
import json
import re
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from spoofkit.errors import SpoofkitError
from spoofkit.files import read_text
from spoofkit.settings import Config


def load_config(path: Path | str | None, overrides: list[str] | None = None) -> Config:
    """Read the settings in `path` (None gives the defaults), then apply `section.key=value` overrides.

    Raises:
        SpoofkitError: unreadable YAML, unknown or repeated key, wrong type, value out of range.
    """
    where = str(path) if path is not None else "settings"
    values = parse_yaml(read_text(path), where) if path is not None else {}
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise SpoofkitError(
            f"{where}: found {type(values).__name__}, expected settings as `key: value`; see docs/settings.md"
        )
    values = _unshared(values)
    for override in overrides or []:
        _apply_override(values, override)
    return _check(values, where, overrides or [])


OF_STAGE = {
    "posttrain": {"seed", "crop_samples", "encoder", "mix", "posttrain"},
    "finetune": {"seed", "crop_samples", "encoder", "finetune"},
}


def stage_settings(config: Config, stage: str) -> dict[str, Any]:
    """Return the settings that `posttrain` or `finetune` uses, as its config.yaml holds them."""
    return config.model_dump(mode="json", include=OF_STAGE[stage])


def read_recorded(path: Path) -> dict[str, Any]:
    """Read the config.yaml of an experiment, in the names of today.

    A setting that is newer than the file has its default, which therefore must mean what was done before it existed.

    Raises:
        SpoofkitError: there is none, or it is not one.
    """
    try:
        found = yaml.safe_load(read_text(path))
        for stage in found.values():
            if isinstance(stage, dict) and "accumulate" in stage:  # of an older version: the number of micro-batches
                n_parts = stage.pop("accumulate")
                stage["micro_batch_size"] = None if n_parts == 1 else stage["batch_size"] // n_parts
        defaults = Config().model_dump(mode="json")
        return {section: _with_defaults(value, defaults.get(section)) for section, value in found.items()}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise SpoofkitError(f"{path}: is not the config.yaml of an experiment; train again with --overwrite") from error


def _with_defaults(found: Any, default: Any) -> Any:
    """Add the defaults of settings that are missing, at any depth."""
    if not (isinstance(found, dict) and isinstance(default, dict)):
        return found
    return default | {name: _with_defaults(value, default.get(name)) for name, value in found.items()}


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """Describe the settings in which two experiments differ.

    An encoder's name does not count: its hash among the inputs identifies it, under whatever path.
    """
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [] if before == now else [f"{name}: {before} there, {now} now"]
    keys = [key for key in dict.fromkeys([*before, *now]) if not (name == "encoder" and key == "name")]
    return [line for key in keys for line in differences(before.get(key), now.get(key), f"{name}.{key}".lstrip("."))]


def _check(values: dict[str, Any], where: str, overrides: list[str]) -> Config:
    try:
        # As JSON, strict checking takes a list for a pair and 1 for 1.0, but no `yes` for 1 and no text for a number.
        return Config.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        name, sentence = _first_problem(error)
        for override in overrides:
            if f"{name}.".startswith(override.partition("=")[0] + "."):
                where = f"--set {override}"
        raise SpoofkitError(f"{where}: {sentence}") from error


def _unshared(value: Any) -> Any:
    """Copy a value so that no object occurs twice: YAML aliases share one object, and `--set` must change one place."""
    if isinstance(value, dict):
        return {key: _unshared(inside) for key, inside in value.items()}
    return [_unshared(inside) for inside in value] if isinstance(value, list) else value


RENAMED = {"accumulate": "micro_batch_size, the number of utterances in a part instead of the number of parts"}
MOST_VALUES = 100_000
NO_NUMBER = re.compile(r"[-+]?(0[0-7_]|.*:)")
MERGE_TAG = "tag:yaml.org,2002:merge"  # `<<: *base`, whose keys may be given again


class _StrictLoader(yaml.SafeLoader):
    """YAML without PyYAML's traps.

    `1e-5` is a number, `1:30:00` (base 60) and `010` (octal) are not; a repeated key is an error; aliases may repeat
    what they name, but neither hold themselves nor multiply without end.
    """

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        tag = super().resolve(kind, value, implicit)
        is_number = tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
        return "tag:yaml.org,2002:str" if is_number and NO_NUMBER.match(value) else tag

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _size(node, {})
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != MERGE_TAG]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def _size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Count the values of a node with aliases expanded; 0 in `sizes` marks a node that is being counted."""
    if id(node) not in sizes:
        sizes[id(node)] = 0
        inside = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for entry in inside for part in (entry if isinstance(entry, tuple) else (entry,))]
        sizes[id(node)] = 1 + sum(_size(part, sizes) for part in parts)
        if sizes[id(node)] > MOST_VALUES:
            raise yaml.composer.ComposerError(
                None, None, f"more than {MOST_VALUES:,} values with aliases expanded", node.start_mark
            )
    elif sizes[id(node)] == 0:
        raise yaml.composer.ComposerError(None, None, "an alias contains itself", node.start_mark)
    return sizes[id(node)]


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML strictly: see `_StrictLoader`.

    Args:
        text: The document.
        where: What the error names: its file, or the option that holds it.

    Raises:
        SpoofkitError: it is not valid.
    """
    try:
        return yaml.load(text, _StrictLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a number of 5,000 digits; brackets in brackets
        reason = " ".join(str(error).split())
        raise SpoofkitError(f"{where}: not valid YAML ({reason})") from error


def _apply_override(values: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise SpoofkitError(f"--set {override}: expected section.key=value, for example --set finetune.optim.lr=1e-5")
    *sections, last = name.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise SpoofkitError(f"--set {override}: {section} is a value, not a section")
    values[last] = parse_yaml(text, f"--set {override}")


def _first_problem(error: ValidationError) -> tuple[str, str]:
    """Return the name of the first wrong setting, and what is wrong with it."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _keys_at(problem["loc"][:-1])
        close = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(known)}"
        if problem["loc"][-1] in RENAMED:
            hint = f"it is now {RENAMED[problem['loc'][-1]]}"
        return where, f"unknown setting {where}; {hint}"
    message = problem["msg"].removeprefix("Value error, ")
    found = "" if problem["type"] == "value_error" else f", found {problem['input']!r}"
    return where, f"{where + ': ' if where else ''}{message}{found}"


def _keys_at(location: tuple[Any, ...]) -> list[str]:
    model: type[BaseModel] = Config
    for part in location:
        annotation: Any = model.model_fields[str(part)].annotation
        model = next((one for one in get_args(annotation) if one is not NoneType), annotation)  # of `Section | None`
    return list(model.model_fields)
