"""How an encoder or a model was trained: one entry per stage, oldest first, in `stages.json` in the encoder's folder.

An entry says what the stage was made from (settings, hashes of its inputs), its result (steps, the kept weights and
their figures) and, under `finished` and `runs`, when and where it ran. The file follows the weights, as
`provenance.json` does. No hash of a folder covers it: the same weights from another day or machine are the same model.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, TypeAdapter, ValidationError

from spoofkit.errors import SpoofkitError
from spoofkit.files import read_json, write_json
from spoofkit.settings import EncoderSettings

FILE = "stages.json"
POSTTRAINING, FINETUNING, FRAME_HEAD, AVERAGE = "post-training", "fine-tuning", "frame head", "average"
NOT_RECORDED = "not recorded"
WHEN_AND_WHERE = ("finished", "runs")
UNPUBLISHED = {"from scratch": "encoder from random weights", "fixed filters, no tensors": "encoder of fixed filters"}
"""What `Encoder.loaded` says of encoders without published weights, and what to call them."""
N_HASH_DIGITS = 12  # of a hash, for people

Stage = dict[str, Any]


def write_stages(folder: Path, stages: Sequence[Stage]) -> None:
    """Write `stages.json` into a folder that is being written; without stages the weights are as published."""
    write_json(folder / FILE, list(stages), overwrite=True)


def read_stages(folder: Path) -> list[Stage]:
    """Read `stages.json`; for a folder without it, return that nothing is recorded.

    Raises:
        SpoofkitError: it is not what spoofkit writes.
    """
    path = folder / FILE
    if not path.exists():
        return [{"stage": NOT_RECORDED}]
    stages: Any = read_json(path)
    if not are_stages(stages):
        raise SpoofkitError(f"{path}: is no record of training stages; copy the folder again, or delete this file")
    found: list[Stage] = stages
    return found


def are_stages(value: Any) -> bool:
    """Return whether a JSON value is a list of stages."""
    try:
        _STAGES.validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


class _Kept(BaseModel):
    step: int
    figures: dict[str, float]


class _Run(BaseModel):
    hardware: str
    n_processes: int
    precision: str
    versions: dict[str, str]
    commit: str | None


class _Training(BaseModel):
    stage: Literal["post-training", "fine-tuning", "frame head"]
    settings: dict[str, Any]
    inputs: dict[str, str]
    weights: str
    n_steps: int
    kept: _Kept
    trained_on: str = ""
    finished: str = ""
    runs: list[_Run] = []


class _Averaged(BaseModel):
    sha256: str
    stages: "list[_Training | _Average | _NotRecorded]"


class _Average(BaseModel):
    stage: Literal["average"]
    of: list[_Averaged]


class _NotRecorded(BaseModel):
    stage: Literal["not recorded"]


_STAGES = TypeAdapter(list[_Training | _Average | _NotRecorded])


def facts(stages: Sequence[Stage]) -> list[Stage]:
    """Return the stages without when and where they ran: equal for the same training on any day and machine."""
    return [
        {name: value for name, value in stage.items() if name not in WHEN_AND_WHERE}
        | ({"of": [one | {"stages": facts(one["stages"])} for one in stage["of"]]} if stage["stage"] == AVERAGE else {})
        for stage in stages
    ]


def trained_as(stages: Sequence[Stage]) -> EncoderSettings | None:
    """Return how the last stage trained the encoder; for a mean, the last stage of the first model.

    Returns:
        Settings whose `name` has no meaning; None if nothing is recorded.
    """
    if not stages:
        return None
    if stages[-1]["stage"] == AVERAGE:
        return trained_as(stages[-1]["of"][0]["stages"])
    wanted = {"freeze", "lora", "gradient_checkpointing"}
    recorded = stages[-1].get("settings", {}).get("encoder", {})
    try:
        return (
            EncoderSettings(**{name: value for name, value in recorded.items() if name in wanted}) if recorded else None
        )
    except ValidationError:  # of another version
        return None


def is_from_scratch(stages: Sequence[Stage], loaded: str) -> bool:
    """Return whether training did not start from published weights.

    Args:
        stages: Stages of the encoder.
        loaded: What `Encoder.loaded` says of it.
    """
    if not stages:
        return loaded in UNPUBLISHED
    if stages[0]["stage"] == AVERAGE:
        return all(is_from_scratch(one["stages"], "") for one in stages[0]["of"])
    return stages[0].get("weights") in UNPUBLISHED


def posttraining(stages: Sequence[Stage]) -> str | list[Stage]:
    """Return what model.json says of how its encoder was post-trained: the facts, or a sentence that there are none."""
    before = [stage for stage in stages if stage["stage"] in (POSTTRAINING, AVERAGE)]
    if before:
        return facts(before)
    return _without_posttraining(stages)


def _without_posttraining(stages: Sequence[Stage]) -> str:
    if any(stage["stage"] == NOT_RECORDED for stage in stages):
        return NOT_RECORDED
    began_from = {stage["weights"] for stage in stages if "weights" in stage}
    return f"none: {next((words for name, words in UNPUBLISHED.items() if name in began_from), 'encoder as published')}"


def makes_frame_head(settings: dict[str, Any]) -> bool:
    """Return whether post-training with these settings (of its config.yaml) leaves a frame head.

    The controls with keys of utterances or random frame targets leave none: it would find nothing that has a meaning.
    """
    supervision = settings.get("posttrain", {}).get("supervision", "frames")
    return bool(supervision == "frames" and settings.get("mix", {}).get("frame_target") != "random")


def describe_stages(stages: Sequence[Stage]) -> list[tuple[str, str]]:
    """Return the name and description of each stage as text; always with a line about post-training."""
    lines = [line for stage in stages for line in _describe(stage)]
    if any(stage["stage"] in (POSTTRAINING, AVERAGE) for stage in stages):
        return lines
    return [(POSTTRAINING, _without_posttraining(stages)), *lines]


def describe_posttraining(stages: Sequence[Stage]) -> str:
    """Join the lines of `describe_stages` about post-training into one."""
    return "; then ".join(words for name, words in describe_stages(stages) if name in (POSTTRAINING, AVERAGE))


def _describe(stage: Stage) -> list[tuple[str, str]]:
    name = stage["stage"]
    if name == NOT_RECORDED:
        return []
    if name == AVERAGE:
        models = ", ".join(one["sha256"][:N_HASH_DIGITS] for one in stage["of"])
        lines = [(f"{number}: {what}", words) for number, one in enumerate(stage["of"], 1)
                 for what, words in describe_stages(one["stages"])]  # fmt: skip
        return [(AVERAGE, f"the mean of {len(stage['of'])} ({models})"), *lines]
    kept = stage["kept"]
    figures = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in kept["figures"].items())
    inputs = ", ".join(
        f"{name} {value[:N_HASH_DIGITS]}" for name, value in stage["inputs"].items() if name != "encoder"
    )
    words = _describe_supervision(stage["settings"]) if name == POSTTRAINING else []
    words.append(f"{stage['n_steps']:,} steps, weights of step {kept['step']:,} ({figures or 'not evaluated on dev'})")
    if trained_on := stage.get("trained_on"):
        words.append(f"on {trained_on}")
    if finished := stage.get("finished"):
        words.append(f"finished {finished[:10]}")
    words.append(f"inputs: {inputs}")
    words += list(dict.fromkeys(_describe_run(run) for run in stage.get("runs", [])))
    return [(name, "; ".join(words))]


def _describe_supervision(settings: dict[str, Any]) -> list[str]:
    """Describe what a post-training classified; nothing if its settings are not recorded."""
    if "mix" not in settings:
        return []
    pairing, target = settings["mix"].get("pairing"), settings["mix"].get("frame_target")
    if settings.get("posttrain", {}).get("supervision") == "utterances":
        return [f"on keys of unmixed bases (a control; pairing {pairing})"]
    return [f"on frames (target {target}{', a control' if target == 'random' else ''}; pairing {pairing})"]


def _describe_run(run: dict[str, Any]) -> str:
    processes = f"{run['n_processes']} process{'es' if run['n_processes'] != 1 else ''}"
    sha1, plus, changes = (run["commit"] or "").partition("+")
    code = f" (commit {sha1[:N_HASH_DIGITS]}{plus}{changes})" if sha1 else ""
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    return f"{run['hardware']}, {processes}, {run['precision']}, {versions}{code}"
