"""Front-ends: equal to transformers' modules, frames independent of the batch and counted right."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from conftest import PARITY, SHARED
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from spoofkit.data.dataset import Batch, Item
from spoofkit.data.loading import load_batches
from spoofkit.errors import SpoofkitError
from spoofkit.models.detector import Detector
from spoofkit.models.encoder import Encoder
from spoofkit.models.info import as_lines, describe
from spoofkit.models.pretrained import load_encoder
from spoofkit.models.wave_network import WaveNetwork, read_network
from spoofkit.settings import EncoderSettings

SMALL = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48,
    "conv_dim": [16] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
# The two kinds of stem that published weights have: `group` in base models, `layer` in large ones.
GROUP = {"feat_extract_norm": "group", "do_stable_layer_norm": False}
LAYER = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "wav2vec2-group": ("Wav2Vec2", GROUP),
    "wav2vec2-layer": ("Wav2Vec2", LAYER),
    "wav2vec2-adapters": ("Wav2Vec2", LAYER | {"adapter_attn_dim": 8}),  # MMS, fine-tuned
    "hubert-group": ("Hubert", GROUP),
    "hubert-layer": ("Hubert", LAYER),
    "hubert-batchnorm": ("Hubert", GROUP | {"conv_pos_batch_norm": True}),  # mHuBERT-147
    "wavlm-group": ("WavLM", GROUP),
    "wavlm-layer": ("WavLM", LAYER),
    "data2vec-audio": ("Data2VecAudio", {"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 7}),
    "unispeech-sat-group": ("UniSpeechSat", GROUP),
    "unispeech-sat-layer": ("UniSpeechSat", LAYER),
    "w2v-bert-relative_key": ("Wav2Vec2Bert", {"position_embeddings_type": "relative_key"}),
    "w2v-bert-relative": ("Wav2Vec2Bert", {"position_embeddings_type": "relative"}),
    "w2v-bert-rotary": ("Wav2Vec2Bert", {"position_embeddings_type": "rotary"}),
    "whisper": ("Whisper", {}),
}
FAMILIES = list(VARIANTS)
NOT_WHISPER = [name for name in FAMILIES if name != "whisper"]


def make_folder(name: str, folder: Path, task: str = "Model") -> Path:
    """A small randomly initialised model of a family as a Hugging Face folder, written by transformers itself."""
    import transformers as hf

    torch.manual_seed(1)
    family, options = VARIANTS[name]
    if family == "Whisper":
        config = hf.WhisperConfig(
            d_model=32, encoder_layers=3, encoder_attention_heads=4, encoder_ffn_dim=48,
            num_mel_bins=80,
            decoder_layers=1, decoder_attention_heads=4, decoder_ffn_dim=48,
            max_source_positions=1500, vocab_size=60,
            pad_token_id=0,
            bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        )  # fmt: skip
        getattr(hf, f"Whisper{task}")(config).save_pretrained(folder)
        hf.WhisperFeatureExtractor().save_pretrained(folder)
        return folder
    small = dict(SMALL)
    if family == "Wav2Vec2Bert":
        for key in ("conv_dim", "num_conv_pos_embeddings", "num_conv_pos_embedding_groups"):
            del small[key]
    network = getattr(hf, f"{family}{task}")(getattr(hf, f"{family}Config")(**small | options))
    with torch.no_grad():  # biases start at zero and norms at one: then a forgotten one would not be noticed
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
        for name_, buffer in network.named_buffers():
            if name_.endswith("running_mean"):
                buffer.normal_()
    network.save_pretrained(folder)
    if family == "Wav2Vec2Bert":
        hf.SeamlessM4TFeatureExtractor(padding_value=1.0).save_pretrained(folder)
    else:
        do_normalize = options.get("feat_extract_norm") != "group"
        hf.Wav2Vec2FeatureExtractor(do_normalize=do_normalize, return_attention_mask=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make_folder(name, tmp_path_factory.mktemp(name)) for name in FAMILIES}


def theirs(folder: Path, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Hidden states of one utterance by transformers' own module."""
    import transformers as hf

    network = hf.AutoModel.from_pretrained(folder).eval()
    states = getattr(network, "encoder" if hasattr(network, "decoder") else "forward")(
        features, output_hidden_states=True
    )
    # Before or after the final norm: which of the two the last of their hidden states is depends on their version.
    return (*states.hidden_states[:-1], states.last_hidden_state)


def their_last_layer(folder: Path, features: torch.Tensor) -> torch.Tensor:
    """What the last layer of transformers' own module returns, whatever is done with it afterwards."""
    import transformers as hf

    network = hf.AutoModel.from_pretrained(folder).eval()
    found: list[torch.Tensor] = []
    network.encoder.layers[-1].register_forward_hook(
        lambda _layer, _inputs, output: found.append(output if isinstance(output, torch.Tensor) else output[0])
    )
    (network.encoder if hasattr(network, "decoder") else network)(features)
    return found[0]


def their_features(folder: Path, wave: torch.Tensor) -> torch.Tensor:
    """Input of the network by transformers' own feature extractor."""
    import transformers as hf

    extractor = hf.AutoFeatureExtractor.from_pretrained(folder)
    inputs = extractor(wave.numpy(), sampling_rate=16_000, return_tensors="pt")
    return inputs["input_features" if "input_features" in inputs else "input_values"]


def our_features(encoder: Encoder, wave: torch.Tensor, n_samples: torch.Tensor, folder: Path) -> torch.Tensor:
    """Ours where there is a spectrogram (compared with theirs by a test of its own), theirs elsewhere."""
    if not hasattr(encoder, "features"):
        return their_features(folder, wave[0])
    features = encoder.features(wave, n_samples)
    return features if features.shape[1] == 80 else features.transpose(1, 2)


def load(folder: Path | str, **options: object) -> Encoder:
    return load_encoder(EncoderSettings(name=str(folder), **{"freeze": "none", **options})).eval()


def voices(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    waves = torch.zeros(len(lengths), max(lengths))
    for row, n in zip(waves, lengths, strict=True):
        row[:n] = 0.1 * torch.randn(n, generator=generator) + 0.05  # an offset, so that normalising matters
    return waves, torch.tensor(lengths)


def last(encoder: Encoder, wave: torch.Tensor, n_samples: torch.Tensor) -> torch.Tensor:
    (hidden,), _ = encoder(wave, n_samples)
    return hidden


def differs(name: str, kind: str, ours: torch.Tensor, reference: torch.Tensor) -> None:
    """Assert that it does not, and note by how much it does."""
    difference = float((ours - reference).abs().max())
    row = PARITY.setdefault(name, {})
    row[kind] = max(difference, row.get(kind, 0.0))
    assert difference < 1e-5


@pytest.mark.parametrize("name", FAMILIES)
@torch.inference_mode()
def test_hidden_states_equal_those_of_transformers(name: str, folders: dict[str, Path]) -> None:
    # transformers' Whisper reads 30 s or nothing
    wave, n_samples = voices([480_000 if name == "whisper" else 16_000])
    encoder = load(folders[name])
    states, is_frame = encoder(wave, n_samples, "all")
    assert is_frame.all()
    inputs = our_features(encoder, wave, n_samples, folders[name])
    expected = theirs(folders[name], inputs)
    assert len(states) == len(expected) == len(encoder.layers) + 1
    for ours, reference in zip(states, expected, strict=True):
        assert ours.shape == reference.shape
        differs(name, "one utterance", ours, reference)
    assert torch.equal(last(encoder, wave, n_samples), states[-1])
    plain, _ = encoder(wave, n_samples, "all", final_norm=False)
    differs(name, "last layer", plain[-1], their_last_layer(folders[name], inputs))
    for number, state in enumerate(plain):
        (one,), _ = encoder(wave, n_samples, number, final_norm=False)
        assert torch.equal(one, state)
        assert torch.equal(state, states[number]) or (number == len(plain) - 1 and encoder.parameters_above_layers())


@pytest.mark.parametrize("name", [name for name in FAMILIES if name.startswith(("wav2vec2-", "hubert-"))])
@torch.inference_mode()
def test_networks_without_transformers_compute_the_same_bit_for_bit(name: str, folders: dict[str, Path]) -> None:
    wave, n_samples = voices([20_000, 9_001])
    settings = EncoderSettings(name=str(folders[name]))
    encoder, expected = load_encoder(settings, for_scoring=True).eval(), load(folders[name])
    is_own = isinstance(encoder.network, WaveNetwork)
    assert is_own == (
        name not in ("wav2vec2-adapters", "hubert-batchnorm")
    )  # transformers' beyond what is computed here
    assert encoder.loaded == expected.loaded
    for part in ((wave, n_samples), (wave[1:, :9_001], n_samples[1:])):
        states, is_frame = encoder(*part, "all")
        expected_states, expected_is_frame = expected(*part, "all")
        assert torch.equal(is_frame, expected_is_frame)
        assert all(map(torch.equal, states, expected_states))


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "relu"}, {"feat_extract_activation": "relu"}, {"add_adapter": True}, {"model_type": "wavlm"},
        {"hidden_size": "32"}, {"num_attention_heads": 0}, {"conv_kernel": [10, 3]}, {"num_hidden_layers": 4},
        {"intermediate_size": 10**12}, {"conv_stride": None},
    ],
)  # fmt: skip
def test_what_is_not_computed_exactly_is_left_to_transformers(
    change: dict[str, object], folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(folders["wav2vec2-layer"], tmp_path / "copy")
    assert isinstance((read_network(folder) or [None])[0], WaveNetwork)  # as long as nothing is changed
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    assert read_network(folder) is None


def test_weights_that_do_not_fit_or_are_not_finite_are_left_to_transformers(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(folders["hubert-group"], tmp_path / "copy")
    tensors = load_file(folder / "model.safetensors")
    name = "encoder.layers.1.attention.q_proj.weight"
    for changed in (
        {key: value for key, value in tensors.items() if key != name},
        tensors | {"more": torch.zeros(1)},
        tensors | {name: tensors[name] * torch.nan},
        tensors | {name: tensors[name][:1].clone()},
        tensors | {name: tensors[name].half()},
    ):
        save_file(changed, folder / "model.safetensors", {"format": "pt"})
        assert read_network(folder) is None
    (folder / "model.safetensors").write_bytes(b"damaged")
    assert read_network(folder) is None


@pytest.mark.parametrize("name", NOT_WHISPER)
@torch.inference_mode()
def test_each_utterance_of_a_padded_batch_gets_the_frames_transformers_gives_it_alone(
    name: str, folders: dict[str, Path]
) -> None:
    wave, n_samples = voices([20_000, 9_001])
    encoder = load(folders[name])
    (together,), is_frame = encoder(wave, n_samples)
    expected = theirs(folders[name], our_features(encoder, wave[1:, :9_001], n_samples[1:], folders[name]))[-1][0]
    assert int(is_frame[1].sum()) == len(expected)
    differs(name, "in padded batch", together[1, : len(expected)], expected)


@pytest.mark.parametrize("name", ["whisper", "w2v-bert-rotary"])
@torch.inference_mode()
def test_spectrograms_equal_those_of_transformers(name: str, folders: dict[str, Path]) -> None:
    for n in (480_000,) if name == "whisper" else (16_000, 9_001, 560):
        wave, n_samples = voices([n])
        ours = our_features(load(folders[name]), wave, n_samples, folders[name])
        reference = their_features(folders[name], wave[0])
        # They keep a last stack of which one frame is padding, and mask it in batches.
        assert ours.shape[1] in (reference.shape[1], reference.shape[1] - 1)
        # Theirs rounds to single precision on the way.
        assert torch.allclose(ours, reference[:, : ours.shape[1]], atol=1e-4)


@pytest.mark.parametrize("name", ["tiny", *FAMILIES])
@torch.inference_mode()
def test_frames_do_not_depend_on_the_batch(name: str, folders: dict[str, Path]) -> None:
    encoder = load(folders.get(name, name))
    wave, n_samples = voices([20_000, 9_001, 14_399, 800])
    (together,), is_frame = encoder(wave, n_samples)
    for row, n in enumerate(n_samples.tolist()):
        (alone,), _ = encoder(wave[row : row + 1, :n], n_samples[row : row + 1])
        assert int(is_frame[row].sum()) == alone.shape[1]
        differs(name, "batch v. alone", together[row, : alone.shape[1]], alone[0])


@pytest.mark.parametrize(
    "name", ["tiny", "sinc-aasist", "hubert-group", "data2vec-audio", "w2v-bert-rotary", "whisper"]
)
def test_the_number_of_frames_is_what_the_geometry_says(name: str, folders: dict[str, Path]) -> None:
    encoder = load(folders.get(name, name))

    @settings(max_examples=25, deadline=None)
    @given(st.integers(encoder.shortest, 12_000))
    def check(n_samples: int) -> None:
        with torch.inference_mode():
            (hidden,), is_frame = encoder(torch.zeros(1, n_samples), torch.tensor([n_samples]))
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
        seen = encoder.convolve(wave, n_samples)[0, :, frame].square().sum()
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
    assert torch.allclose(last(encoder, wave, n_samples), hidden, atol=1e-5)


@pytest.mark.parametrize("name", ["tiny", "wavlm-layer", "whisper"])
@torch.inference_mode()
def test_what_is_saved_opens_elsewhere_with_the_same_outputs(
    name: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    import transformers as hf

    encoder = load(folders.get(name, name), n_layers=2)
    encoder.save(tmp_path / "encoder")
    wave, n_samples = voices([16_000])
    expected = last(encoder, wave, n_samples)
    assert torch.allclose(last(load(tmp_path / "encoder"), wave, n_samples), expected, atol=1e-6)
    whole = hf.AutoModel.from_pretrained(tmp_path / "encoder").eval()
    if name == "whisper":
        features = load(tmp_path / "encoder").features(*voices([480_000]))
        ours = last(load(tmp_path / "encoder"), *voices([480_000]))
        assert torch.allclose(whole.encoder(features).last_hidden_state, ours, atol=1e-5)
    else:
        inputs = hf.AutoFeatureExtractor.from_pretrained(tmp_path / "encoder")(
            wave[0].numpy(), sampling_rate=16_000, return_tensors="pt"
        )
        elsewhere = whole(inputs.input_values).last_hidden_state
        assert torch.allclose(elsewhere, expected, atol=1e-5)


def with_gradient(encoder: Encoder) -> set[str]:
    wave, n_samples = voices([8_000])
    torch.manual_seed(0)  # of dropout
    last(encoder.train(), wave, n_samples).square().sum().backward()
    return {name for name, p in encoder.network.named_parameters() if p.grad is not None and bool(p.grad.any())}


@pytest.mark.parametrize(
    "name", ["wav2vec2-layer", "wavlm-layer", "data2vec-audio", "w2v-bert-relative_key", "whisper"]
)
def test_what_is_frozen_gets_no_gradient_and_the_rest_does(name: str, folders: dict[str, Path]) -> None:
    learnt = with_gradient(load(folders[name], freeze="none"))
    layer = "layers.{}." if name == "whisper" else "encoder.layers.{}."
    stems = {"whisper": ("conv1.", "conv2."), "w2v-bert-relative_key": ("feature_projection.",)}
    stem = stems.get(name, ("feature_extractor.",))
    assert with_gradient(load(folders[name], freeze="stem")) == {n for n in learnt if not n.startswith(stem)}
    encoder = load(folders[name], freeze=2)
    above = {n for n in learnt if n.startswith(layer.format(2))}
    final = {"wav2vec2-layer": "encoder.layer_norm.", "wavlm-layer": "encoder.layer_norm.", "whisper": "layer_norm."}
    above |= {n for n in learnt if n.startswith(final.get(name, "no such name"))}
    assert with_gradient(encoder) == above
    assert [module.training for module in encoder.layers] == [False, False, True]
    assert not any(p.requires_grad for p in load(folders[name], freeze="all").parameters())


def test_layers_above_the_one_that_is_read_are_neither_computed_nor_trained(folders: dict[str, Path]) -> None:
    wave, n_samples = voices([8_000])
    encoder = load(folders["wavlm-layer"])
    called = []
    for number, layer in enumerate(encoder.layers):
        layer.feed_forward.register_forward_hook(lambda *_, number=number: called.append(number))
    detector = Detector(encoder, "mean", 2)
    with torch.inference_mode():
        detector(wave, n_samples)
    assert called == [0, 1]
    learnt = with_gradient(load(folders["wavlm-layer"], n_layers=2))
    trained = {name for name, p in encoder.network.named_parameters() if p.requires_grad}
    assert {n for n in trained if n.startswith("encoder.layers.")} == {
        n for n in learnt if n.startswith("encoder.layers.")
    }
    assert not any(n.startswith("encoder.layer_norm.") for n in trained)
    with pytest.raises(SpoofkitError, match="layers: 4 is out of range, the encoder has 3 layers"):
        Detector(encoder, "mean", 4)


@pytest.mark.parametrize("name", ["wav2vec2-group", "wavlm-layer", "w2v-bert-relative", "whisper"])
def test_gradient_checkpointing_changes_no_gradient(name: str, folders: dict[str, Path]) -> None:
    gradients = []
    for checkpointing in (False, True):
        encoder = load(folders[name], gradient_checkpointing=checkpointing)
        with_gradient(encoder)
        gradients.append({n: p.grad for n, p in encoder.network.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.allclose(gradients[0][n], gradients[1][n], atol=1e-5, rtol=1e-4) for n in gradients[0])


def edit_weights(folder: Path, edit) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (
            lambda t: t.pop("encoder.layers.1.attention.k_proj.weight"),
            "1 tensors are missing .85 of 86 fit., first encoder.layers.1.attention",
        ),
        (lambda t: t.update(extra=torch.zeros(3)), "1 tensors are unknown .86 of 86 fit., first extra"),
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
    with pytest.raises(SpoofkitError, match=r"neither a folder nor available from the Hugging Face hub.*hf download"):
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
    with pytest.raises(SpoofkitError, match="9 is more than the 3 layers"):
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
    with pytest.raises(SpoofkitError, match=r"u1: has 480001 samples.*at most 480000.*lower crop_samples"):
        batches(480_001)


TASKS = {
    name: [task for task in ("PreTraining", "CTC", "SequenceClassification", "AudioFrameClassification", "XVector")
           if hasattr(transformers, f"{VARIANTS[name][0]}For{task}")]
    for name in ("wav2vec2-layer", "hubert-group", "wavlm-group", "data2vec-audio", "unispeech-sat-layer",
                 "w2v-bert-relative_key")
} | {"whisper": ["AudioClassification", "ConditionalGeneration"]}  # fmt: skip
HEADS = {
    "vocab_size": 9, "use_weighted_layer_sum": True, "tdnn_dim": [16] * 5, "xvector_output_dim": 16, "num_clusters": 9,
    "num_codevectors_per_group": 4, "codevector_dim": 16, "proj_codevector_dim": 16,
}  # fmt: skip


@pytest.mark.parametrize(("name", "task"), [(name, task) for name, tasks in TASKS.items() for task in tasks])
def test_of_a_model_for_a_task_the_encoder_is_read_and_what_else_it_has_left_out(
    name: str, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, options = VARIANTS[name]
    monkeypatch.setitem(VARIANTS, name, (family, options | HEADS))
    folder = make_folder(name, tmp_path / "model", f"For{task}")
    saved = load_file(folder / "model.safetensors")
    found = load(folder).network.state_dict()
    inside = {key: [other for other in saved if other == key or other.endswith(f".{key}")] for key in found}
    if name == "whisper":
        inside = {key: [other for other in saved if other.endswith(f"encoder.{key}")] for key in found}
    assert all(len(keys) == 1 and torch.equal(saved[keys[0]], found[key]) for key, keys in inside.items())
    assert len(load(folder).ignored) == len(saved) - len(found) > 0
    edit_weights(folder, lambda tensors: tensors.update({"objective.bias": torch.zeros(2)}))
    with pytest.raises(SpoofkitError, match=r"1 tensors are unknown.*objective\.bias"):
        load(folder)


def test_info_counts_and_names_the_tensors_that_it_does_not_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, options = VARIANTS["wav2vec2-layer"]
    monkeypatch.setitem(VARIANTS, "wav2vec2-layer", (family, options | HEADS))
    folder = make_folder("wav2vec2-layer", tmp_path / "model", "ForXVector")
    words = dict(as_lines(describe(str(folder), None, 1, 0.5)))["not used"]
    assert words.startswith("18 tensors of the task it was trained for: classifier.bias, classifier.weight, ")
    assert words.endswith(" and 13 more")


def test_what_belongs_to_another_familys_task_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["wav2vec2-layer"], tmp_path / "encoder"))
    edit_weights(folder, lambda tensors: tensors.update({"label_embeddings_concat": torch.zeros(2, 2)}))
    with pytest.raises(SpoofkitError, match=r"unknown.*label_embeddings_concat"):
        load(folder)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real Whisper-base encoder is not on this machine")
@torch.inference_mode()
def test_the_real_whisper_base_encoder_loads_and_ignores_padding() -> None:
    encoder = load(SHARED / "models/whisper-base-encoder", n_layers=3)
    wave, n_samples = voices([30_000, 16_000])
    (together,), _ = encoder(wave, n_samples)
    (alone,), _ = encoder(wave[1:, :16_000], n_samples[1:])
    assert encoder.width == 512
    difference = (together[1, : alone.shape[1]] - alone[0]).abs().max() / alone.std()
    assert difference < 1e-4
    assert np.isfinite(alone.numpy()).all()


@pytest.mark.parametrize("name", ["wavlm-group", "wav2vec2-layer"])
def test_attention_code_that_a_config_names_is_not_looked_up(
    name: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(folders[name], tmp_path / "encoder"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"attn_implementation": "someone/kernel"}))
    assert load(folder).network.config._attn_implementation in ("eager", "sdpa")
