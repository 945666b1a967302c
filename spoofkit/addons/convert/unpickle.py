"""Reading a checkpoint file without running anything that is in it.

A `.pt` or `.ckpt` file is a pickle, and a pickle is a program. Here it is read by torch's own restricted interpreter
(`torch.load(weights_only=True)`), which builds tensors and plain containers and knows no other function. What training
frameworks leave in their files beside the tensors (settings, dictionaries, meters) becomes an inert stand-in that keeps
its contents; the framework itself is neither imported nor needed. Every other name in the file is refused.
"""

import contextlib
import pickle
import pickletools
import struct
import warnings
import zipfile
import zlib
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch

from spoofkit.errors import SpoofkitError
from spoofkit.files import read_error

# Packages whose objects a file may hold; they are never built, only replaced by stand-ins.
FRAMEWORKS = (
    "argparse", "enum", "fairseq", "hydra", "lightning", "lightning_fabric", "numpy", "omegaconf", "pathlib",
    "pytorch_lightning", "s3prl", "speechbrain", "typing",
)  # fmt: skip
# Types that settings mention, as omegaconf does: names only.
TYPES = ("bool", "bytes", "dict", "float", "frozenset", "int", "list", "object", "str", "tuple")
# What torch's interpreter builds by itself, besides everything of its own; it refuses the rest of torch.
HARMLESS = (
    "_codecs.encode", "builtins.bytearray", "builtins.complex", "builtins.set", "collections.Counter",
    "collections.OrderedDict",
)  # fmt: skip
ZIP, PICKLE = b"PK\x03\x04", b"\x80"
LEGACY_PICKLES = 5  # before 1.6 torch wrote: magic number, version, system, the object, the storages' keys
# What reading a damaged or hostile file can raise in torch's interpreter, pickletools and zipfile; RuntimeError is also
# raised for what is too deeply nested, encrypted or not implemented.
BROKEN = (
    pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError,
    AssertionError, MemoryError, OverflowError, struct.error, zipfile.BadZipFile, zlib.error, OSError,
)  # fmt: skip
# Types that a network's weights can have; float8 and packed ones mean nothing without their scales.
DTYPES = (
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
)  # fmt: skip


class StandIn:
    """A stand-in for an object whose class is not imported: its arguments and its state."""

    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> "StandIn":
        """Make a stand-in; unpickling may not call `__init__`."""
        made = super().__new__(cls)
        made.args, made.state = args, None
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state


def load_tensors(path: Path) -> dict[str, Any]:
    """Read the top object of a checkpoint that `torch.save` wrote, in its present or its legacy format.

    Returns:
        A dictionary; objects of training frameworks in it are StandIn (see `plain`), and tensors may be mapped from
        the file instead of read.

    Raises:
        SpoofkitError: no such file, no checkpoint, a damaged one, one that names anything but tensors, plain values and
            a known framework's objects (nothing of it is run), one with NaN or infinite values.
    """
    names = _scan(path)
    for name in sorted(names):
        if not _is_known(name):
            raise SpoofkitError(
                f"{path}: would call {name}, expected only tensors, plain values and settings of known frameworks; "
                "nothing of it was run; do not use this file unless you trust its author"
            )
    stand_ins = [(_empty_dict if name == "collections.defaultdict" else StandIn, name) for name in names]
    # torch knows its own names and what is harmless; stand-ins must not hide them.
    stand_ins = [(kind, name) for kind, name in stand_ins if not name.startswith("torch.") and name not in HARMLESS]
    try:
        with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():  # type: ignore[arg-type]
            warnings.simplefilter("ignore")  # of an unusual protocol, before it is refused
            top = torch.load(path, map_location="cpu", weights_only=True, mmap=_starts_with(path, ZIP))
    except BROKEN as error:
        raise SpoofkitError(_not_readable(path, error)) from error
    if not isinstance(top, dict):
        raise SpoofkitError(f"{path}: holds a {type(top).__name__}, expected a dictionary with the model's tensors")
    for name, tensor in named_tensors(top):
        check_tensor(name, tensor, path)
    return top


def plain(value: Any) -> Any:
    """Convert settings to plain dictionaries, lists and values, from stand-ins of omegaconf, argparse and enums.

    Tensors are no settings and become None.

    >>> namespace = StandIn()
    >>> namespace.state = {"encoder_layers": 12}
    >>> plain({"args": namespace})
    {'args': {'encoder_layers': 12}}
    """
    return _plain(value, {})


def named_tensors(value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every tensor inside nested dictionaries, lists and tuples with its dotted name; each container once."""
    seen: set[int] = set()  # a hostile file can contain itself
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, torch.Tensor):
            yield name, value
        if id(value) in seen or not isinstance(value, (dict, list, tuple)):
            continue
        seen.add(id(value))
        items = value.items() if isinstance(value, dict) else enumerate(value)
        waiting.extend((f"{name}.{key}" if name else str(key), inside) for key, inside in reversed(list(items)))


def check_tensor(name: str, tensor: torch.Tensor, where: Path) -> None:
    """Refuse a tensor that holds NaN or infinity, is no ordinary array, or is larger than the values stored for it."""
    if not name.isprintable() or len(name) > 300:
        raise SpoofkitError(f"{where}: has a tensor called {name[:40]!r}, expected the name of a part; fetch it again")
    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized or tensor.device.type != "cpu":
        raise SpoofkitError(
            f"{where}: tensor {name} is sparse, nested, quantised or empty of values, expected an ordinary one; ask "
            "the file's author for the model's state_dict"
        )
    if tensor.dtype not in DTYPES:
        raise SpoofkitError(
            f"{where}: tensor {name} is of type {str(tensor.dtype).removeprefix('torch.')}, expected float16, "
            "bfloat16, float32 or float64; use the weights from before they were packed"
        )
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise SpoofkitError(
            f"{where}: tensor {name} has {tensor.numel():,} values, but fewer are stored; ask the file's author for "
            "the model's state_dict"
        )
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise SpoofkitError(f"{where}: tensor {name} holds NaN or infinite values; fetch the file again")


def _scan(path: Path) -> set[str]:
    """Return the names of all functions and classes that a checkpoint uses, found without executing it."""
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in a damaged text
            start = file.read(512)
            if start.startswith(ZIP):
                return _names_in_zip(path)
            if start.startswith(PICKLE):
                file.seek(0)
                names: set[str] = set()
                with contextlib.suppress(*BROKEN):  # a legacy file holds bare numbers after its pickles
                    for _ in range(LEGACY_PICKLES):
                        _names_in_pickle(file, names)
                return names
    except BROKEN as error:
        raise SpoofkitError(_not_readable(path, error)) from error
    raise SpoofkitError(f"{path}: {_what_it_is(start)}, expected a checkpoint that torch.save wrote")


def _names_in_zip(path: Path) -> set[str]:
    names: set[str] = set()
    with zipfile.ZipFile(path) as archive:
        inside = [part for part in archive.infolist() if part.filename.count("/") == 1]
        if any(part.filename.endswith("/constants.pkl") for part in inside):
            raise SpoofkitError(f"{path}: is a TorchScript program, expected tensors; ask its author for a state_dict")
        pickles = [part for part in inside if part.filename.endswith("/data.pkl")]
        if not pickles:
            raise SpoofkitError(f"{path}: is a zip archive without data.pkl, expected what torch.save wrote")
        # torch maps numbers from the file in place: compressed ones would become nonsense without an error.
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            raise SpoofkitError(
                f"{path}: is a compressed zip archive, expected what torch.save wrote, which is not; fetch it again"
            )
        for part in pickles:
            with archive.open(part) as file:
                _names_in_pickle(file, names)
    return names


def _names_in_pickle(file: IO[bytes], names: set[str]) -> None:
    """Add the names that one pickle uses."""
    texts: list[str] = []
    for opcode, arg, _ in pickletools.genops(file):
        if opcode.name in ("GLOBAL", "INST"):
            names.add(_full_name(*str(arg).split(" ", 1)))
        elif opcode.name == "STACK_GLOBAL":  # of later protocols, which torch refuses; the name is for our message
            names.add(_full_name(*(texts[-2:] if len(texts) > 1 else ("an", "unknown name"))))
        elif isinstance(arg, str):
            texts.append(arg)


def _full_name(module: str, name: str) -> str:
    """Return the full name; protocol 2 writes Python 2's names, such as `__builtin__.long`, as torch reads them."""
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return " ".join(f"{module}.{name}".split())  # in a damaged file they can hold anything


def _is_known(name: str) -> bool:
    module = name.split(".", 1)[0]
    return (
        module in FRAMEWORKS
        or module == "torch"
        or name in HARMLESS
        or name == "collections.defaultdict"
        or (module == "builtins" and name.removeprefix("builtins.") in TYPES)
    )


def _empty_dict(*_: Any) -> dict[Any, Any]:
    """Stand in for defaultdict, whose items follow."""
    return {}


def _plain(value: Any, done: dict[int, Any]) -> Any:
    if not isinstance(value, (StandIn, dict, list, tuple)):
        return None if isinstance(value, torch.Tensor) else value
    if id(value) in done:
        return done[id(value)]
    done[id(value)] = None  # what contains itself ends here
    result: Any
    if isinstance(value, StandIn):
        state = value.state
        inside = state if state is not None else (value.args[0] if value.args else None)
        if isinstance(state, dict):
            inside = next((state[key] for key in ("_content", "_val") if key in state), state)  # omegaconf
        result = _plain(inside, done)
    elif isinstance(value, dict):
        result = {key: _plain(inside, done) for key, inside in value.items()}
    else:
        result = [_plain(inside, done) for inside in value]
    done[id(value)] = result
    return result


def _starts_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _what_it_is(start: bytes) -> str:
    text = start.lstrip().lower()
    if not start:
        return "is empty"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "is a web page, so the download failed"
    if text.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer without the file itself (`git lfs pull` fetches it)"
    if len(start) > 8 and start[8:9] == b"{":
        return "is a safetensors file"
    return "is no checkpoint"


def _not_readable(path: Path, error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return str(read_error(path, error))
    if "GLOBAL torch." in str(error):
        name = str(error).split("GLOBAL ", 1)[1].split(" ", 1)[0]
        return f"{path}: holds a pickled {name}, expected tensors alone; ask its author for the model's state_dict"
    reason = (" ".join(str(error).split()) or type(error).__name__).split(". ")[0][:150]
    return f"{path}: is damaged or cut short ({reason}), expected what torch.save wrote; fetch it again"
