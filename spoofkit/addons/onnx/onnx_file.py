"""Checking an ONNX file before onnxruntime opens it: known operators only, undamaged, and no other file.

An ONNX file is one protobuf message. Only operators, metadata and the places of weights are read, so no package
is needed beyond onnxruntime. Field numbers: onnx.proto, https://github.com/onnx/onnx.
"""

import hashlib
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from spoofkit.errors import SpoofkitError
from spoofkit.files import file_sha256

_NAMES = """
    Abs Add And BatchNormalization Cast Clip Concat Constant ConstantOfShape Conv Cos Div DynamicQuantizeLinear
    Einsum Equal Erf Expand Flatten GRU Gather GatherElements Gemm Greater Identity IsNaN LSTM
    LayerNormalization LeakyRelu Less Log MatMul MatMulInteger Max MaxPool Min Mod Mul Neg Not Pad Range
    ReduceL2 ReduceMax ReduceMean ReduceSum Relu Reshape Selu Shape Sigmoid Sin Slice Softmax Split Sqrt Squeeze
    Sub Tanh TopK Transpose Unsqueeze Where
"""
OPERATORS = frozenset(_NAMES.split())
"""All operators of the graphs of `spoofkit export`. None contains a graph, so none can loop without end."""
SEAL = "sha256"
"""Metadata: SHA-256 of the file with zeros in the place of these 64 digits, a JSON string like every entry."""
ZEROS = b"0" * 64
_VARINT, _BYTES = 0, 2
_WIDTHS = {1: 8, 5: 4}
# By message: fields that are messages, and fields that our exports never have.
_GRAPH, _NODE, _ATTRIBUTE, _TENSOR, _ENTRY = "graph", "node", "attribute", "tensor", "entry"
_INSIDE = {
    "model": {7: _GRAPH, 14: _ENTRY},
    _GRAPH: {1: _NODE, 5: _TENSOR},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 10: _TENSOR},
    _TENSOR: {},
    _ENTRY: {},
}
_REFUSED = {
    "model": {20: "training", 25: "functions"},
    _GRAPH: {15: "sparse weights"},
    _ATTRIBUTE: {6: "a graph within", 11: "graphs within", 21: "functions", 22: "sparse weights", 23: "sparse weights"},
    _TENSOR: {13: "weights in other files"},
}


@dataclass
class Contents:
    """The contents of a file."""

    operators: set[str] = field(default_factory=set)
    """Names of the operators; see `operators`."""
    metadata: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Where the value of each entry begins and ends."""


def operators(path: Path) -> set[str]:
    """Return the names of the operators in a file, with the domain as a prefix if it is not ONNX's own.

    Raises:
        SpoofkitError: see `require_own`.
    """
    return _read(path).operators


def require_own(path: Path) -> None:
    """Refuse a file that `spoofkit export` cannot have written, or that does not match its own checksum.

    Raises:
        SpoofkitError: it is damaged, no ONNX file, or holds other operators, graphs within the graph, functions, or
            weights that lie in other files.
    """
    found = _read(path)
    unknown = sorted(found.operators - OPERATORS)
    if unknown:
        raise SpoofkitError(
            f"{path}: holds the operator {unknown[0]!r}, which `spoofkit export` never writes; expected a file that it "
            "wrote, so export the model folder again"
        )
    if SEAL not in found.metadata:
        return
    start, stop = _digits(found)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        digest = hashlib.sha256()
        with memoryview(data) as view, view[:start] as before, view[stop:] as behind:
            for part in (before, ZEROS, behind):
                digest.update(part)
        if data[start:stop] != digest.hexdigest().encode():
            raise SpoofkitError(
                f"{path}: its SHA-256 is not the one in its metadata, so it is damaged or was changed; copy it again, "
                "or export the model folder again"
            )


def seal(path: Path) -> None:
    """Write the checksum of a file into its metadata, in place of `ZEROS`.

    Raises:
        SpoofkitError: see `require_own`.
    """
    start, _ = _digits(_read(path))
    digest = file_sha256(path)
    with path.open("r+b") as file:
        file.seek(start)
        file.write(digest.encode())


def _digits(found: Contents) -> tuple[int, int]:
    """Return where the digits of the checksum begin and end, within quotes."""
    start, stop = found.metadata[SEAL]
    return start + 1, stop - 1


def _read(path: Path) -> Contents:
    found = Contents()
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _walk(data, 0, len(data), "model", found)
    except (OSError, ValueError) as error:
        raise SpoofkitError(
            f"{path}: cannot be read as an ONNX model of `spoofkit export` ({error}); export the model folder again"
        ) from error
    return found


def _walk(data: mmap.mmap, start: int, stop: int, message: str, found: Contents) -> None:
    """Collect what is in a message.

    Raises:
        ValueError: it is damaged, or holds something that our exports never do.
    """
    texts: dict[int, tuple[int, int]] = {}
    for number, at, end in _fields(data, start, stop):
        refused = _REFUSED.get(message, {}).get(number)
        if refused:
            raise ValueError(f"it holds {refused}")
        inside = _INSIDE[message].get(number)
        if inside:
            _walk(data, at, end, inside, found)
        elif message in (_NODE, _ENTRY):
            if message == _NODE and number in (4, 7) and number in texts:
                raise ValueError("an operator has two names")
            texts[number] = at, end
    if message == _NODE:
        name, domain = (data[slice(*texts.get(number, (0, 0)))].decode() for number in (4, 7))
        found.operators.add(f"{domain}:{name}" if domain else name)
    elif message == _ENTRY:
        found.metadata[data[slice(*texts.get(1, (0, 0)))].decode()] = texts.get(2, (0, 0))


def _fields(data: mmap.mmap, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, beginning and end of each field of a message; for numbers the end is the beginning.

    Raises:
        ValueError: a field is cut short or of an unknown kind.
    """
    at = start
    while at < stop:
        tag, at = _varint(data, at, stop)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            _, at = _varint(data, at, stop)
            length = 0
        elif kind == _BYTES:
            length, at = _varint(data, at, stop)
        elif kind in _WIDTHS:
            length, at = 0, at + _WIDTHS[kind]
        else:
            raise ValueError("it is damaged")
        if not 0 < number < 2**29 or at + length > stop:
            raise ValueError("it is damaged")
        yield number, at, at + length
        at += length


def _varint(data: mmap.mmap, at: int, stop: int) -> tuple[int, int]:
    """Read a number of variable length, and return where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= stop:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("it is damaged")
