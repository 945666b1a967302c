"""What a licence allows when a model is passed on: keep it, state another one, or not at all."""

import re

from spoofkit.errors import SpoofkitError
from spoofkit.models.provenance import NOT_KNOWN, Provenance

PERMISSIVE = ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-3.0", "cc-by-4.0")
IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9.-]*")


def identifier(licence: str) -> str:
    """Write a licence as the hub does.

    >>> identifier("CC BY-NC-SA 4.0"), identifier("Apache-2.0")
    ('cc-by-nc-sa-4.0', 'apache-2.0')
    """
    return "-".join(licence.lower().split())


def licence_to_state(provenance: Provenance | None, is_own: bool, stated: str | None) -> str:
    """Return the licence of a model that is passed on.

    Args:
        provenance: Origin of the weights that it was trained from.
        is_own: Whether it was trained from scratch.
        stated: What the user says (`--licence`).

    Raises:
        SpoofkitError: the licence of the base forbids it, or other terms; or it is not known, or not one licence, and
            nothing is stated.
    """
    if stated is not None and not IDENTIFIER.fullmatch(stated):
        raise SpoofkitError(f"--licence {stated}: is no identifier, expected one such as cc-by-nc-4.0 or apache-2.0")
    base = identifier(provenance.licence) if provenance else ""
    parts = set(base.split("-"))
    if base.startswith("cc-") and "nd" in parts:
        assert provenance is not None
        raise SpoofkitError(
            f"the licence of {provenance.source}, {provenance.licence}, forbids to pass on what was made of it; push "
            "adapters on it alone, or ask its owner"
        )
    if base.startswith("cc-") and parts & {"nc", "sa"}:
        assert provenance is not None
        is_same_kind = stated is None or stated == base or ("sa" not in parts and "nc" in stated.split("-"))
        if not is_same_kind:
            wanted = base if "sa" in parts else f"{base}, or another one that forbids commercial use"
            raise SpoofkitError(
                f"--licence {stated}: the licence of {provenance.source}, {provenance.licence}, does not allow it; "
                f"expected {wanted}"
            )
        return stated or base
    if stated is not None:
        return stated
    if base in PERMISSIVE:
        return base
    of_base = provenance.licence if provenance else NOT_KNOWN
    found = "it was trained from scratch" if is_own else f"that of its base is {of_base}"
    raise SpoofkitError(
        f"the model needs a licence: {found}; find out what you may do, and state one, such as `--licence cc-by-4.0`"
    )
