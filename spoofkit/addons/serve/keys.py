"""Keys of those who may use the service: a file with one a line; a line that begins with # is a comment."""

import hashlib
import hmac
import os
import stat
from pathlib import Path

from spoofkit.errors import SpoofkitError
from spoofkit.terminal import say

SHORTEST = 20
"""Characters of a key: 20 letters and digits at random are 119 bits."""
HOW = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'


class Keys:
    """The keys of a file, as hashes; empty: everybody may use the service."""

    def __init__(self, keys: list[str]) -> None:
        self._hashes = [_hash(key) for key in keys]

    def __bool__(self) -> bool:
        """Return whether a key is required."""
        return bool(self._hashes)

    def accept(self, header: str) -> bool:
        """Tell whether a header `Authorization` holds one of the keys, in a time that does not depend on it."""
        scheme, _, key = header.partition(" ")
        found, is_known = _hash(key.strip()), False
        for own in self._hashes:
            is_known |= hmac.compare_digest(own, found)
        return is_known and scheme.lower() == "bearer"


def read_keys(path: Path) -> Keys:
    """Read a file of keys.

    Raises:
        SpoofkitError: it is missing, holds no key, or one that is short or has other characters than ASCII's visible.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SpoofkitError(f"{path}: cannot be read ({error}), expected a file with one key per line") from error
    keys = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not keys:
        raise SpoofkitError(f"{path}: holds no key, expected one a line; make one with `{HOW}`")
    for number, key in enumerate(keys, 1):
        if len(key) < SHORTEST or not (key.isascii() and key.isprintable()) or " " in key:
            raise SpoofkitError(
                f"{path}: key {number} is too short or has a space or another character than ASCII's, expected "
                f"{SHORTEST} or more; make one with `{HOW}`"
            )
    if os.stat(path).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        say(f"spoofkit: warning: {path}: others on this machine may read the keys; `chmod 600` it")
    return Keys(keys)


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()
