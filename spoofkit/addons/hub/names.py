"""Names of the hub, what can go wrong when it is asked, and the sentence for it."""

import re
from dataclasses import dataclass
from typing import Any

from spoofkit.errors import SpoofkitError
from spoofkit.models.names import HUB

PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
NAME = re.compile(rf"{HUB}(?P<id>{PART}/{PART})(@(?P<revision>[A-Za-z0-9][A-Za-z0-9._/-]*))?")
COMMIT = re.compile(r"[0-9a-f]{40}")
DEFAULT_REVISION = "main"


@dataclass(frozen=True)
class HubName:
    """A parsed name."""

    id: str
    """`OWNER/MODEL`."""
    revision: str
    """Branch, tag or commit."""

    def __str__(self) -> str:
        """Format it, as a record holds it."""
        return f"{HUB}{self.id}@{self.revision}"

    @property
    def is_pinned(self) -> bool:
        """Whether it names a commit, which never changes."""
        return COMMIT.fullmatch(self.revision) is not None


def parse(name: str) -> HubName:
    """Parse `hub:OWNER/MODEL[@REVISION]`.

    >>> str(parse("hub:facebook/mms-300m"))
    'hub:facebook/mms-300m@main'

    Raises:
        SpoofkitError: another form.
    """
    match = NAME.fullmatch(name)
    if match is None or ".." in name:
        raise SpoofkitError(
            f"{name}: is no name of the hub, expected {HUB}OWNER/MODEL or {HUB}OWNER/MODEL@REVISION, such as "
            f"{HUB}nii-yamagishilab/mms-300m-anti-deepfake"
        )
    return HubName(match["id"], match["revision"] or DEFAULT_REVISION)


def refused(name: HubName, error: Exception, what: str = "") -> SpoofkitError:
    """Return the sentence for an error of huggingface_hub.

    Args:
        name: What was asked for.
        error: What the library raised.
        what: File that was asked for.
    """
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{name.id}"
    if isinstance(error, errors.GatedRepoError):
        return SpoofkitError(
            f"{HUB}{name.id}: is gated, and this account has no access; accept its conditions on {page}, then log in "
            "with `hf auth login`"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return SpoofkitError(f"{name}: the repository has no revision {name.revision}; see {page}/commits/main")
    if isinstance(error, errors.RepositoryNotFoundError) or _status(error) in (401, 403):
        return SpoofkitError(
            f"{HUB}{name.id}: there is no such model on {constants.ENDPOINT}, or this account may not see it; check "
            "the name, or log in with `hf auth login`"
        )
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return SpoofkitError(f"{name}: lacks {what or 'a file'}, which its list of files names; try again later")
    about = f"{what} " if what else ""
    return SpoofkitError(f"{name}: {about}could not be fetched ({reason(error)}); try again")


def reason(error: Exception) -> str:
    """Return an error in a few words, on one line."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words[:160].rstrip(".:; ")


def is_unreachable(error: Exception) -> bool:
    """Return whether the hub could not be asked at all, so that the cache may answer."""
    from huggingface_hub import errors

    if isinstance(error, (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError)):
        return True
    # httpx's own errors, whose package differs between versions of huggingface_hub
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return bool(kinds & {"TransportError", "ConnectionError"}) or (_status(error) or 0) >= 500


def _status(error: Exception) -> int | None:
    response: Any = getattr(error, "response", None)
    return getattr(response, "status_code", None)
