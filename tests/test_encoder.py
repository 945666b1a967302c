"""Front-ends: equal to transformers' modules, frames independent of the batch and counted right."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from spoofkit.config import EncoderSettings
from spoofkit.data.dataset import Batch, Item
from spoofkit.data.loading import load_batches
from spoofkit.errors import SpoofkitError
from spoofkit.models.encoder import Encoder, load_encoder

SMALL = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48,
    "conv_dim": [16] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
# The two kinds of stem that published weights have: `group` in base models, `layer` in large ones.
GROUP = {"feat_extract_norm": "group", "do_stable_layer_norm": False}
LAYER = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
FAMILIES = ["wav2vec2-group", "wav2vec2-layer", "hubert-group", "hubert-layer", "wavlm-group", "wavlm-layer", "whisper"]


def make_folder(name: str, folder: Path) -> Path:
    """A small randomly initialised model of a family as a Hugging Face folder, written by transformers itself."""
    import transformers as hf

    torch.manual_seed(1)
    family, _, norm = name.partition("-")
    if family == "whisper":
        config = hf.WhisperConfig(
            d_model=32, encoder_layers=3, encoder_attention_heads=4, encoder_ffn_dim=48,
            num_mel_bins=80,
            decoder_layers=1, decoder_attention_heads=4, decoder_ffn_dim=48,
            max_source_positions=1500, vocab_size=60,
            pad_token_id=0,
            bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        )  # fmt: skip
        hf.WhisperModel(config).save_pretrained(folder)
        hf.WhisperFeatureExtractor().save_pretrained(folder)
        return folder
    kinds = {
        "wav2vec2": (hf.Wav2Vec2Config, hf.Wav2Vec2Model),
        "hubert": (hf.HubertConfig, hf.HubertModel),
        "wavlm": (hf.WavLMConfig, hf.WavLMModel),
    }
    make_config, make_model = kinds[family]
    make_model(make_config(**SMALL, **(GROUP if norm == "group" else LAYER))).save_pretrained(folder)
    hf.Wav2Vec2FeatureExtractor(do_normalize=norm == "layer", return_attention_mask=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make_folder(name, tmp_path_factory.mktemp(name)) for name in FAMILIES}


def load(folder: Path | str, **options: object) -> Encoder:
    return load_encoder(EncoderSettings(name=str(folder), **{"freeze_stem": False, **options})).eval()


def voices(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    waves = torch.zeros(len(lengths), max(lengths))
    for row, n in zip(waves, lengths, strict=True):
        row[:n] = 0.1 * torch.randn(n, generator=generator) + 0.05  # an offset, so that normalising matters
    return waves, torch.tensor(lengths)


@pytest.mark.parametrize("name", [f for f in FAMILIES if f != "whisper"])
@torch.inference_mode()
def test_frames_equal_those_of_transformers(name: str, folders: dict[str, Path]) -> None:
    import transformers as hf

    wave, n_samples = voices([16_000])
    inputs = hf.AutoFeatureExtractor.from_pretrained(folders[name])(
        wave[0].numpy(), sampling_rate=16_000, return_tensors="pt"
    )
    theirs = hf.AutoModel.from_pretrained(folders[name]).eval()(inputs.input_values).last_hidden_state
    ours, is_frame = load(folders[name])(wave, n_samples)
    assert is_frame.all()
    assert ours.shape == theirs.shape
    assert torch.allclose(ours, theirs, atol=1e-5)


@torch.inference_mode()
def test_whisper_frames_equal_those_of_transformers_on_thirty_seconds(folders: dict[str, Path]) -> None:
    import transformers as hf

    wave, n_samples = voices([480_000])
    inputs = hf.WhisperFeatureExtractor.from_pretrained(folders["whisper"])(
        wave[0].numpy(), sampling_rate=16_000, return_tensors="pt"
    )
    theirs = hf.WhisperModel.from_pretrained(folders["whisper"]).eval().encoder(inputs.input_features).last_hidden_state
    ours, _ = load(folders["whisper"])(wave, n_samples)
    assert ours.shape == theirs.shape
    # Their spectrogram is computed in double precision by numpy, ours by torch in single.
    assert torch.allclose(ours, theirs, atol=2e-4)


@pytest.mark.parametrize("name", ["tiny", *FAMILIES])
@torch.inference_mode()
def test_frames_do_not_depend_on_the_batch(name: str, folders: dict[str, Path]) -> None:
    encoder = load(folders.get(name, name))
    wave, n_samples = voices([20_000, 9_001, 14_399, 800])
    together, is_frame = encoder(wave, n_samples)
    for row, n in enumerate(n_samples.tolist()):
        alone, _ = encoder(wave[row : row + 1, :n], n_samples[row : row + 1])
        assert int(is_frame[row].sum()) == alone.shape[1]
        assert torch.allclose(together[row, : alone.shape[1]], alone[0], atol=1e-5), name


@pytest.mark.parametrize("name", ["tiny", "hubert-group", "whisper"])
def test_the_number_of_frames_is_what_the_geometry_says(name: str, folders: dict[str, Path]) -> None:
    encoder = load(folders.get(name, name))

    @settings(max_examples=25, deadline=None)
    @given(st.integers(encoder.shortest, 12_000))
    def check(n_samples: int) -> None:
        with torch.inference_mode():
            hidden, is_frame = encoder(torch.zeros(1, n_samples), torch.tensor([n_samples]))
        assert hidden.shape[1] == int(is_frame.sum()) == encoder.geometry.n_frames(n_samples)

    check()


@pytest.mark.parametrize("name", ["wav2vec2-layer", "whisper"])
def test_a_frame_is_centred_where_the_geometry_says(name: str, folders: dict[str, Path]) -> None:
    """The samples that the convolutions of a frame see, found by gradient, are those of its receptive field."""
    encoder = load(folders[name])
    wave, n_samples = voices([16_000])
    wave.requires_grad_()
    geometry = encoder.geometry
    frame = 20
    if name == "whisper":
        with torch.enable_grad():
            spectrum = torch.stft(wave[0], 400, 160, window=torch.ones(400), center=True, return_complex=True)
            features = spectrum[:, :-1].abs()[None, :80]
            seen = encoder.network.conv2(encoder.network.conv1(features))[0, :, frame].sum()
    else:
        seen = encoder._stem(wave, n_samples)[0, :, frame].square().sum()
    (gradient,) = torch.autograd.grad(seen, wave)
    touched = gradient[0].nonzero().flatten()
    first, last = int(touched[0]), int(touched[-1])
    centre = geometry.first_centre + geometry.hop * frame
    assert abs((first + last + 1) / 2 - centre) <= 1
    assert abs(last - first + 1 - geometry.receptive_field) <= 2


@torch.inference_mode()
def test_fewer_layers_are_the_first_layers(folders: dict[str, Path]) -> None:
    import transformers as hf

    wave, n_samples = voices([8_000])
    encoder = load(folders["hubert-group"], n_layers=2)
    assert len(encoder.network.encoder.layers) == 2
    whole = hf.AutoModel.from_pretrained(folders["hubert-group"]).eval()
    hidden = whole(wave, output_hidden_states=True).hidden_states[2]
    assert torch.allclose(encoder(wave, n_samples)[0], hidden, atol=1e-5)


@pytest.mark.parametrize("name", ["tiny", "wavlm-layer", "whisper"])
@torch.inference_mode()
def test_what_is_saved_opens_elsewhere_with_the_same_outputs(
    name: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    import transformers as hf

    encoder = load(folders.get(name, name), n_layers=2)
    encoder.save(tmp_path / "encoder")
    wave, n_samples = voices([16_000])
    expected = encoder(wave, n_samples)[0]
    assert torch.allclose(load(tmp_path / "encoder")(wave, n_samples)[0], expected, atol=1e-6)
    if name != "whisper":
        inputs = hf.AutoFeatureExtractor.from_pretrained(tmp_path / "encoder")(
            wave[0].numpy(), sampling_rate=16_000, return_tensors="pt"
        )
        elsewhere = hf.AutoModel.from_pretrained(tmp_path / "encoder").eval()(inputs.input_values).last_hidden_state
        assert torch.allclose(elsewhere, expected, atol=1e-5)


def test_a_frozen_stem_gets_no_gradient(folders: dict[str, Path]) -> None:
    wave, n_samples = voices([8_000])
    for name in ("wav2vec2-layer", "whisper"):
        encoder = load(folders[name], freeze_stem=True)
        encoder(wave, n_samples)[0].sum().backward()
        stem = encoder.network.conv1 if name == "whisper" else encoder.network.feature_extractor
        assert all(parameter.grad is None for parameter in stem.parameters())
        assert any(parameter.grad is not None for parameter in encoder.parameters())


def edit_weights(folder: Path, edit) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (
            lambda t: t.pop("encoder.layers.1.attention.k_proj.weight"),
            "1 tensors are missing, first encoder.layers.1.attention",
        ),
        (lambda t: t.update(extra=torch.zeros(3)), "1 tensors are unknown, first extra"),
        (lambda t: t["encoder.layer_norm.weight"].fill_(float("nan")), "tensor encoder.layer_norm.weight holds NaN"),
        (lambda t: t.update({"encoder.layer_norm.weight": torch.zeros(7)}), "encoder.layer_norm.weight"),
    ],
    ids=["missing", "unknown", "NaN", "shape"],
)
def test_weights_that_do_not_fit_are_refused(edit, sentence: str, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["wav2vec2-layer"], tmp_path / "encoder"))
    edit_weights(folder, edit)
    with pytest.raises(SpoofkitError, match=sentence):
        load(folder)


def test_what_is_no_encoder_is_refused_in_one_sentence(folders: dict[str, Path], tmp_path: Path) -> None:
    import transformers as hf

    with pytest.raises(SpoofkitError, match="no folder /nowhere/encoder"):
        load("/nowhere/encoder")
    with pytest.raises(
        SpoofkitError, match=r"neither a local folder nor to be had from the Hugging Face hub.*hf download"
    ):
        load("no-such-owner/no-such-model")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SpoofkitError, match="cannot be loaded as an encoder"):
        load(tmp_path / "empty")
    hf.BertConfig(hidden_size=8, num_attention_heads=1).save_pretrained(tmp_path / "bert")
    hf.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "bert")
    with pytest.raises(SpoofkitError, match="is a 'bert' model, expected one of wav2vec2"):
        load(tmp_path / "bert")
    cut = Path(shutil.copytree(folders["hubert-group"], tmp_path / "cut"))
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(SpoofkitError, match="cannot be loaded as an encoder"):
        load(cut)
    with pytest.raises(SpoofkitError, match="has 3 layers, 9 were asked for"):
        load(folders["hubert-group"], n_layers=9)


def test_lengths_that_an_encoder_cannot_use_are_refused_by_id(folders: dict[str, Path]) -> None:
    encoder = load(folders["whisper"])

    class OneItem:
        def __init__(self, n_samples: int) -> None:
            self.n_samples = n_samples

        def __getitem__(self, _: object) -> Item:
            return Item("u1", np.zeros(self.n_samples, dtype=np.float32))

    def batches(n_samples: int) -> list[Batch]:
        order = [[(0, 0)]]
        limits = {"shortest": encoder.shortest, "longest": encoder.longest}
        with load_batches(OneItem(n_samples), order, workers=0, **limits) as found:
            return list(found)

    for n_samples in (encoder.shortest, 480_000):
        (batch,) = batches(n_samples)
        with torch.inference_mode():
            assert encoder(batch.wave_BS, batch.n_samples_B)[1].all()
    with pytest.raises(SpoofkitError, match="u1: has 200 samples, the encoder needs at least 201"):
        batches(200)
    with pytest.raises(SpoofkitError, match=r"u1: has 480001 samples.*at most 480000.*--crop first:480000"):
        batches(480_001)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real Whisper-base encoder is not on this machine")
@torch.inference_mode()
def test_the_real_whisper_base_encoder_loads_and_ignores_padding() -> None:
    encoder = load(SHARED / "models/whisper-base-encoder", n_layers=3)
    wave, n_samples = voices([30_000, 16_000])
    together, _ = encoder(wave, n_samples)
    alone, _ = encoder(wave[1:, :16_000], n_samples[1:])
    assert encoder.width == 512
    difference = (together[1, : alone.shape[1]] - alone[0]).abs().max() / alone.std()
    assert difference < 1e-4
    assert np.isfinite(alone.numpy()).all()
