"""What names a model or an encoder: a folder, a file, or `hub:OWNER/MODEL[@REVISION]` of the Hugging Face hub."""

from dataclasses import dataclass
from pathlib import Path

from spoofkit import addons
from spoofkit.errors import SpoofkitError

HUB = "hub:"
"""Beginning of the names that the addon `hub` finds; only they cause network access."""
TORCHAUDIO = "torchaudio:"
"""Beginning of the names of torchaudio's model bundles."""
SINC = ("sinc-aasist", "sinc-rawnet2")
"""Front-ends of fixed filters, without weights."""
FROM_SCRATCH = ("tiny", *SINC)
"""Encoders without published weights."""


@dataclass(frozen=True)
class Named:
    """A model or an encoder that a name means."""

    name: str
    """The name for records: of the hub, with the commit, which never moves."""
    path: Path
    """Its folder; or another file, if the name is its path."""


def is_hub_name(name: Path | str) -> bool:
    """Return whether a name is one of the hub.

    >>> is_hub_name("hub:facebook/mms-300m"), is_hub_name("facebook/mms-300m")
    (True, False)
    """
    return str(name).startswith(HUB)


def find_named(name: Path | str) -> Named:
    """Find what a name means; what the hub has is fetched, and converted if it is not in our format.

    Raises:
        SpoofkitError: a name of the hub that cannot be fetched, or a model that cannot be read.
    """
    if not is_hub_name(name):
        return Named(str(name), Path(name))
    found: Named = addons.find("hub.fetch").fetch(str(name))
    return found


def find_model(name: Path | str) -> Named:
    """Find the detector that a name means.

    Raises:
        SpoofkitError: see `find_named`; or the hub has an encoder under this name. What a path leads to is not checked.
    """
    named = find_named(name)
    if is_hub_name(name) and not (named.path / "model.json").is_file():
        raise SpoofkitError(
            f"{named.name}: is an encoder, expected a detector; train one on it with encoder.name: {name}"
        )
    return named


def folder_of(name: Path | str) -> Path:
    """Return the folder or file that a name means; see `find_named`."""
    return find_named(name).path


def refuse_revision(name: str, revision: str | None) -> None:
    """Refuse a revision of an encoder that is none of the hub by its plain id.

    Raises:
        SpoofkitError: there is one.
    """
    if revision is None:
        return
    if is_hub_name(name):
        raise SpoofkitError(
            f"encoder.revision: {revision} is for a plain hub id; write encoder.name: "
            f"{name.partition('@')[0]}@{revision} instead"
        )
    if Path(name).is_dir() or name in FROM_SCRATCH or name.startswith(TORCHAUDIO):
        kind = "a folder" if Path(name).is_dir() else "none"
        raise SpoofkitError(f"encoder.revision: {revision} is for a hub id, but {name} is {kind}; leave it out")


def encoder_folder(name: str) -> Path:
    """Return the encoder that a name of the hub means: the folder itself, or the one inside a model.

    Raises:
        SpoofkitError: see `find_named`.
    """
    folder = folder_of(name)
    return folder / "encoder" if (folder / "model.json").is_file() else folder
