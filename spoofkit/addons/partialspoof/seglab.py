"""PartialSpoof's segment labels: reading without running anything, comparing resolutions, converting to regions.

As released (`segment_labels/SET_seglab_0.01.npy` and coarser): a pickled dictionary of utterance ids, each with an
array of texts, '1' bona fide and '0' spoof. A pickle is a program; here one may build that dictionary and nothing else.
No class or function that a file names is looked up: what stands in for the few known names builds inert values, arrays
are decoded from their bytes by us, and every other name is refused.

The rule behind the labels (the authors' `03multireso/model.py` of nii-yamagishilab/PartialSpoof, `lab_in_scale`):
a segment is spoof if any part of it is. So a coarser label is the smallest of the finest ones in it. Labels cover the
whole utterance, the last segment as much as is left of it.
"""

import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from spoofkit.errors import SpoofkitError

FINEST_SECONDS = 0.01
COARSER_SECONDS = (0.02, 0.04, 0.08, 0.16, 0.32, 0.64)

LONGEST_HEADER = 10_000  # bytes; numpy's own limit

SpoofFlags = npt.NDArray[np.bool_]
"""For each segment of an utterance, whether it is spoof; shape (segments,)."""
# What a damaged or hostile pickle can raise in Python's interpreter; RuntimeError also for one that is nested too deep.
BROKEN = (
    pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError,
    MemoryError, OverflowError, struct.error,
)  # fmt: skip


class _Inert:
    """A stand-in for a name; its `__setstate__` keeps a file from setting attributes."""

    def __setstate__(self, state: Any) -> None:
        raise ValueError("state for a value that has none")


class _Name(_Inert):
    """A class that is only mentioned: `ndarray`, `list`."""


class _Dtype:
    """A stand-in for a dtype: its code, such as `U21`, and its byte order."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = code, "|"

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]


class _Array:
    """A stand-in for an array: labels are decoded to flags at once, the outer one keeps its only object."""

    value: Any = None

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, _, data = state
        if dtype.code in ("O8", "O") and shape == () and isinstance(data, list) and len(data) == 1:
            (self.value,) = data
        else:
            self.value = _flags(shape, dtype, data)


class _Dict(_Inert):
    """A stand-in for defaultdict and OrderedDict, whose items follow."""

    def __new__(cls, *_: Any) -> Any:
        """Make an empty dictionary."""
        return {}


class _Bytes(_Inert):
    """A stand-in for bytes of protocol 2: Latin-1 text to be encoded, or nothing."""

    def __new__(cls, text: str = "", encoding: str = "latin1") -> Any:
        """Make the bytes."""
        if encoding != "latin1":
            raise ValueError("bytes in another encoding")
        return text.encode("latin1")


NAMES: dict[tuple[str, str], type] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Name,
    ("numpy", "dtype"): _Dtype,
    ("builtins", "list"): _Name,
    ("__builtin__", "list"): _Name,
    ("builtins", "bytes"): _Bytes,
    ("__builtin__", "bytes"): _Bytes,
    ("_codecs", "encode"): _Bytes,
    ("collections", "defaultdict"): _Dict,
    ("collections", "OrderedDict"): _Dict,
}
"""The names that a label file may hold, and the stand-in for each."""


# Python's own interpreter of pickles, not the one in C: that allocates whatever number of entries a file names.
class _Unpickler(pickle._Unpickler):
    """An unpickler that knows only NAMES."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a name."""
        if (module, name) not in NAMES:
            raise _ForeignName(f"{module}.{name}")
        return NAMES[module, name]


class _ForeignName(Exception):
    """A file uses a name that is none of NAMES."""


def read_labels(path: Path) -> dict[str, SpoofFlags]:
    """Read one label file, wholly into memory.

    Returns:
        Flags by utterance, in the file's order: true for each spoofed segment.

    Raises:
        SpoofkitError: no such file, a damaged one, one that asks for anything but arrays of labels (nothing of it is
            run), or labels other than '0' and '1'.
    """
    try:
        with path.open("rb") as file:
            _skip_header(file)
            top = _Unpickler(file).load()
    except _ForeignName as error:
        raise SpoofkitError(
            f"{path}: would call {error}, expected only arrays of labels; nothing of it was run; do not use this file "
            "unless you trust its author"
        ) from error
    except OSError as error:
        raise SpoofkitError(
            f"{path}: cannot be read ({error.strerror}); unpack database_segment_labels_v1.2.tar.gz"
        ) from error
    except BROKEN as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise SpoofkitError(
            f"{path}: is damaged or no label file ({reason}); unpack database_segment_labels_v1.2.tar.gz again"
        ) from error
    labels = top.value if isinstance(top, _Array) else top
    if not isinstance(labels, dict) or not labels:
        raise SpoofkitError(f"{path}: holds no dictionary of labels; unpack database_segment_labels_v1.2.tar.gz again")
    for utt_id, array in labels.items():
        if not (isinstance(utt_id, str) and isinstance(array, _Array) and isinstance(array.value, np.ndarray)):
            raise SpoofkitError(
                f"{path}: {str(utt_id)[:60]!r} has no array of labels, expected one of '1' and '0' for each utterance; "
                "unpack database_segment_labels_v1.2.tar.gz again"
            )
    return {utt_id: array.value for utt_id, array in labels.items()}


def coarser(spoof: SpoofFlags, factor: int) -> SpoofFlags:
    """Compute labels of segments `factor` times as long: spoof if any part is; the last one covers the rest.

    >>> coarser(np.array([False, False, True, False, False]), 2).tolist()
    [False, True, False]
    """
    flags: SpoofFlags = np.logical_or.reduceat(spoof, np.arange(0, spoof.size, factor))
    return flags


def spoofed_runs(spoof: SpoofFlags) -> list[tuple[int, int]]:
    """Return half-open (first, last + 1) of each run of spoofed segments.

    >>> spoofed_runs(np.array([True, False, True, True]))
    [(0, 1), (2, 4)]
    """
    edges = np.flatnonzero(np.diff(spoof.astype(np.int8), prepend=0, append=0))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def compare_with_finest(
    finest: dict[str, SpoofFlags], find: Callable[[float], Path | None], name: str
) -> tuple[list[Path], list[str]]:
    """Compare the released coarser labels with those that the rule gives from the finest.

    Args:
        finest: Labels of 0.01 s.
        find: Returns the label file of a resolution in seconds, or None.
        name: Name of the set, for the findings.

    Returns:
        The files that were compared, and findings in words.

    Raises:
        SpoofkitError: see `read_labels`; or a file has other utterances.
    """
    paths, findings = [], []
    for seconds in COARSER_SECONDS:
        path = find(seconds)
        if path is None:
            findings.append(f"{name}: no labels of {seconds:g} s to compare with those of {FINEST_SECONDS:g} s")
            continue
        paths.append(path)
        released = read_labels(path)
        if released.keys() != finest.keys():
            utt_id = min(released.keys() ^ finest.keys())
            raise SpoofkitError(
                f"{path}: {utt_id!r} is not in both this file and that of {FINEST_SECONDS:g} s; "
                "unpack database_segment_labels_v1.2.tar.gz again"
            )
        factor = round(seconds / FINEST_SECONDS)
        wrong = [
            utt_id for utt_id, spoof in finest.items() if not np.array_equal(coarser(spoof, factor), released[utt_id])
        ]
        if wrong:
            findings.append(
                f"{name}: the released labels of {seconds:g} s differ from those that {FINEST_SECONDS:g} s gives in "
                f"{len(wrong):,} of {len(finest):,} utterances, first {wrong[0]}"
            )
    return paths, findings


def _skip_header(file: IO[bytes]) -> None:
    """Check that an .npy file holds one Python object, and move to the beginning of its pickle."""
    magic = file.read(8)
    if magic not in (b"\x93NUMPY\x01\x00", b"\x93NUMPY\x02\x00"):
        raise ValueError("it does not begin as an .npy file")
    (length,) = struct.unpack("<H", file.read(2)) if magic[6] == 1 else struct.unpack("<I", file.read(4))
    header = file.read(min(length, LONGEST_HEADER)).decode("latin1")
    if "'descr': '|O'" not in header or "'shape': ()" not in header:
        raise ValueError(f"an array {header.strip()} where a dictionary was expected")


def _flags(shape: Any, dtype: _Dtype, data: Any) -> SpoofFlags:
    code = str(dtype.code)
    if not (isinstance(shape, tuple) and len(shape) == 1 and code[:1] == "U" and code[1:].isdecimal()):
        raise ValueError(f"an array of {code} and shape {shape}")
    if dtype.order not in ("<", ">") or not isinstance(data, bytes):
        raise ValueError("an array without plain bytes")
    texts = np.frombuffer(data, dtype=np.dtype(f"{dtype.order}{code}"))
    spoof: SpoofFlags = texts == "0"
    if texts.shape != shape or texts.size == 0 or not np.all(spoof | (texts == "1")):
        raise ValueError("labels other than '0' and '1', or fewer than stated")
    return spoof
