"""Check an experiment's settings before a recipe spends time.

    python -m spoofkit.checks.experiment CONF [--processes N] [--train STAGE]... [--same FOLDER]... KEY=VALUE...

These checks take a fraction of a second: the settings themselves, the folders that they name, whether N processes can
share the batches of the stages to train, and whether an existing training in FOLDER (…/posttrain, …/finetune) has the
same settings. Whether an encoder loads and a batch fits into memory is checked when a training starts, or by its
`--dry-run`. Settings that pass are answered with their seed on stdout, which draws the subset of a recipe's --share.
"""

import argparse
import sys
from pathlib import Path

from spoofkit.config import differences, load_config, read_recorded, stage_settings
from spoofkit.errors import SpoofkitError
from spoofkit.models.names import FROM_SCRATCH, SINC, TORCHAUDIO, is_hub_name, refuse_revision
from spoofkit.processes import require_equal_shares
from spoofkit.settings import Config

STAGES = ("posttrain", "finetune")


def require_folders(settings: Config) -> None:
    """Refuse settings that name a folder that does not exist.

    Raises:
        SpoofkitError: a folder of noise or rooms is missing; or `encoder.name` is neither a folder nor a possible hub
            id or other name of an encoder, or has a revision without being a hub id.
    """
    for stage in STAGES:
        augment = getattr(settings, stage).augment
        for kind in ("noise", "reverb"):
            folder = getattr(augment, f"{kind}_folder")
            if getattr(augment, kind) and not Path(folder).is_dir():
                raise SpoofkitError(
                    f"{stage}.augment.{kind}_folder: no folder {folder} in {Path.cwd()}, expected one with audio files"
                )
    name = settings.encoder.name
    is_hub_id = is_hub_name(name) or (name.count("/") == 1 and not name.startswith((".", "/")))
    if not (Path(name).is_dir() or is_hub_id or name in FROM_SCRATCH or name.startswith(TORCHAUDIO)):
        raise SpoofkitError(
            f"encoder.name: no folder {name} in {Path.cwd()}, expected a folder, {', '.join(FROM_SCRATCH)}, "
            f"{TORCHAUDIO}BUNDLE, hub:OWNER/MODEL or a hub id such as microsoft/wavlm-large"
        )
    refuse_revision(name, settings.encoder.revision)


def require_same(folder: Path, settings: Config) -> None:
    """Refuse settings that differ from those of the training in a folder, if it has got as far as a checkpoint.

    Raises:
        SpoofkitError: settings differ, or the folder's are unreadable.
    """
    if not any(path for name in ("checkpoints", "encoder", "model") for path in folder.glob(f"{name}/*")):
        return
    before, now = read_recorded(folder / "config.yaml"), stage_settings(settings, folder.name)
    for found in (before, now):  # fine-tuning takes post-training's encoder, which has no revision
        found["encoder"] = {**(found.get("encoder") or {}), "revision": None}
    if changed := differences(before, now):
        raise SpoofkitError(
            f"{folder}: holds a training with other settings ({'; '.join(changed[:3])}); restore them, choose "
            "another experiment with --exp, or train again with --overwrite"
        )


def require_trainable(settings: Config) -> None:
    """Refuse post-training of a front-end without parameters.

    Raises:
        SpoofkitError: the front-end has no parameters.
    """
    if settings.encoder.name in SINC:
        raise SpoofkitError(
            f"encoder.name: {settings.encoder.name} has nothing to post-train, expected an encoder with weights; "
            "fine-tune it directly with --posttrain false"
        )


def main() -> None:
    """Check the settings named on the command line, print their seed; an error is one sentence and exit code 1."""
    parser = argparse.ArgumentParser()
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--train", choices=STAGES, action="append", default=[])
    parser.add_argument("--same", type=Path, action="append", default=[])
    arguments = parser.parse_intermixed_args()
    try:
        settings = load_config(arguments.config, arguments.overrides)
        require_folders(settings)
        for stage in arguments.train:
            require_equal_shares(getattr(settings, stage), arguments.processes)
            if stage == "finetune" and (frozen := settings.finetune.frozen()):
                require_equal_shares(frozen, arguments.processes)
        if "posttrain" in arguments.train:
            require_trainable(settings)
        for folder in arguments.same:
            require_same(folder, settings)
        print(settings.seed)
    except (SpoofkitError, OSError) as error:
        sys.exit(f"spoofkit: error: {error}")


if __name__ == "__main__":
    main()
