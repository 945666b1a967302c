"""Whisper's encoder as tensors: read from transformers' files or CTranslate2's, and identified by one SHA-256.

Both formats give the same tensors under the names of transformers' `WhisperEncoder`, in fp16, as OpenAI published them.
The hub stores them widened to fp32, which loses nothing on the way back.

CTranslate2's binary, version 6, as its own model_spec.py writes it (github.com/OpenNMT/CTranslate2); little-endian:

    version u32, specification text, its revision u32
    number of variables u32, then for each:
        name text, rank u8, each dimension u32, type u8, number of bytes u32, values in row-major order
    number of aliases u32, then for each: name text, name of the variable text
    text: length u16 with its final zero byte, then the bytes

Nothing of either file is executed.
"""

import hashlib
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from spoofkit.errors import SpoofkitError

Tensors = dict[str, npt.NDArray[np.float16]]
VERSION, SPECIFICATION = 6, "WhisperSpec"
FLOATS = {0: np.dtype("<f4"), 4: np.dtype("<f2")}
"""CTranslate2's numbers of the types that weights may have."""
HUB_PREFIX = "model.encoder."
"""What the hub's file of the whole Whisper writes before the names of the encoder's tensors."""
OUTSIDE_LAYERS = {
    "conv1": "conv1",
    "conv2": "conv2",
    "position_encodings/encodings": "embed_positions.weight",
    "layer_norm": "layer_norm",
}
INSIDE_LAYERS = {
    "self_attention/layer_norm": "self_attn_layer_norm",
    "self_attention/linear_1": "self_attn.out_proj",
    "ffn/layer_norm": "final_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
}
LEAVES = {"gamma": "weight", "beta": "bias", "weight": "weight", "bias": "bias"}
"""CTranslate2's names of a layer's tensors, and transformers'."""


def tensors_sha256(tensors: Mapping[str, npt.NDArray[np.float16]]) -> str:
    """Hash names, shapes and values of all tensors, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.shape}\n".encode())
        digest.update(np.ascontiguousarray(tensor, dtype="<f2").tobytes())
    return digest.hexdigest()


def read_transformers(path: Path) -> Tensors:
    """Read the encoder from a safetensors file: of the whole Whisper, or of its encoder alone.

    Raises:
        SpoofkitError: it is damaged, or holds no such tensors.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            prefix = HUB_PREFIX if any(name.startswith(HUB_PREFIX) for name in names) else ""
            chosen = [name for name in names if name.startswith(prefix)]
            return {name.removeprefix(prefix): file.get_tensor(name).astype(np.float16) for name in chosen}
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:160]
        raise SpoofkitError(f"{path}: is damaged or cut short ({reason}), expected safetensors; remove it") from error


def read_ctranslate2(data: bytes, where: str) -> Tensors:
    """Read the encoder from CTranslate2's binary of a Whisper.

    Args:
        data: The whole file.
        where: What an error names.

    Raises:
        SpoofkitError: it is cut short or damaged, or it is another version or another network.
    """
    tensors: Tensors = {}
    try:
        for name, variable in _variables(data):
            if name.startswith("encoder/") and name != "encoder/num_heads":
                if variable is None:
                    raise ValueError(f"{name} has no floating-point values")
                tensors |= _renamed(name.removeprefix("encoder/"), variable.astype(np.float16))
    except (struct.error, ValueError, KeyError) as error:
        raise SpoofkitError(
            f"{where}: is damaged, cut short or another network ({error}), expected a Whisper in CTranslate2's format, "
            f"version {VERSION}"
        ) from error
    return tensors


def _variables(data: bytes) -> Iterator[tuple[str, npt.NDArray[np.floating] | None]]:
    """Yield the name and the values of each variable of the binary; None for one that is no weight.

    Raises:
        ValueError, struct.error: it is not as the format says, to its last byte.
    """
    place = 0

    def take(layout: str) -> tuple[int, ...]:
        nonlocal place
        values = struct.unpack_from(f"<{layout}", data, place)
        place += struct.calcsize(f"<{layout}")
        return values

    def text() -> str:
        nonlocal place
        (length,) = take("H")
        found = data[place : place + length]
        place += length
        if len(found) < length or not found.endswith(b"\0"):
            raise ValueError(f"no whole text before byte {place:,}")
        return found[:-1].decode()

    (version,) = take("I")
    if version != VERSION or text() != SPECIFICATION:
        raise ValueError(f"version {version}, or no {SPECIFICATION}")
    take("I")  # its revision: what changed in it concerns the decoder
    for _ in range(*take("I")):
        name = text()
        (rank,) = take("B")
        shape = take(f"{rank}I")
        kind, n_bytes = take("BI")
        values = None
        if rank and kind in FLOATS:
            if n_bytes != FLOATS[kind].itemsize * int(np.prod(shape, dtype=np.int64)):
                raise ValueError(f"{name}: {n_bytes:,} bytes do not make the shape {shape}")
            values = np.frombuffer(data, FLOATS[kind], n_bytes // FLOATS[kind].itemsize, place).reshape(shape)
        place += n_bytes
        yield name, values
    for _ in range(*take("I")):
        text(), text()
    if place != len(data):
        raise ValueError(f"{len(data):,} bytes, of which {place:,} are described")


def _renamed(name: str, values: npt.NDArray[np.float16]) -> Tensors:
    """Return a variable of CTranslate2's encoder as transformers' tensors.

    Raises:
        ValueError: there is no such tensor, or it has a bias that Whisper lacks.
    """
    whole, _, leaf = name.rpartition("/")
    known, prefix = OUTSIDE_LAYERS, ""
    if name.startswith("layer_") and not name.startswith("layer_norm/"):
        number, _, whole = whole.removeprefix("layer_").partition("/")
        known, prefix = INSIDE_LAYERS, f"layers.{int(number)}."
        if whole == "self_attention/linear_0":
            return _attention(prefix, LEAVES[leaf], values)
    if name in known:
        return {known[name]: values}
    if whole not in known or leaf not in LEAVES:
        raise ValueError(f"unknown variable encoder/{name}")
    return {f"{prefix}{known[whole]}.{LEAVES[leaf]}": values}


def _attention(prefix: str, leaf: str, values: npt.NDArray[np.float16]) -> Tensors:
    """Split what CTranslate2 stores in one: the projections to queries, keys and values, the keys' without a bias."""
    thirds = zip("qkv", np.split(values, 3), strict=True)
    parts = {f"{prefix}self_attn.{letter}_proj.{leaf}": part for letter, part in thirds}
    if leaf == "bias" and parts.pop(f"{prefix}self_attn.k_proj.bias").any():
        raise ValueError(f"{prefix}self_attn.k_proj has a bias, which Whisper's has not")
    return parts
