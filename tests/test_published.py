"""Networks equal the numbers that their authors' published code gives for weights and signals anyone can make again.

Weights and signals are drawn name by name (`draw`), so nothing but the numbers is stored. Each set of numbers was
computed once, with torch 2.13 on a CPU in double precision, by the code at the commit named beside it, given the same
weights under that code's names.
"""

import re
from types import SimpleNamespace
from zlib import crc32

import numpy as np
import pytest
import torch
from test_encoder import LAYER, SMALL
from torch import nn
from torch.nn import functional as F

from spoofkit.addons.convert import ssl_detectors
from spoofkit.models.detector import Detector
from spoofkit.models.heads import UTTERANCE_HEADS
from spoofkit.models.losses import make_output
from spoofkit.models.pretrained import load_encoder
from spoofkit.models.wave_encoder import WaveEncoder, WavLMEncoder
from spoofkit.settings import EncoderSettings, LossSettings


def draw(name: str, *shape: int) -> torch.Tensor:
    """Numbers between -1 and 1 that depend on the name alone; numpy promises never to change this stream."""
    return torch.from_numpy(np.random.RandomState(crc32(name.encode())).uniform(-1, 1, shape))


def waves(n_samples: int) -> torch.Tensor:
    """Two signals, shape (2, n_samples): noise, and a tone that wanders."""
    time = np.arange(n_samples)
    return 0.1 * torch.stack(
        [draw("noise", n_samples), torch.from_numpy(np.sin(0.1 * time + 20 * np.sin(1e-3 * time)))]
    )


def filled(module: nn.Module) -> nn.Module:
    """The module in double precision, every number of it drawn: norms around one, matrices of unit gain."""
    module = module.double().eval()
    for name, tensor in module.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        number = draw(name, *tensor.shape)
        if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            number = 1 + 0.3 * number
        elif tensor.ndim < 2:
            number = 0.3 * number
        else:
            number = number * (3 / tensor[0].numel()) ** 0.5
        tensor.copy_(number)
    return module


def pre_norm_detector(family: str, head: str, layers: str) -> Detector:
    """On three small layers of the large published networks' kind: layer norms first, and one above them all."""
    import transformers as hf

    config = getattr(hf, f"{family}Config")(**SMALL | LAYER)
    network = getattr(hf, f"{family}Model")(config)
    kind = {"WavLM": WavLMEncoder, "Wav2Vec2": WaveEncoder}[family]
    # The codes compared with hand waveforms on as they are.
    encoder = kind(network, hf.Wav2Vec2FeatureExtractor(do_normalize=False))
    return filled(Detector(encoder, head, layers))


def logits(detector: Detector, n_samples: int) -> torch.Tensor:
    """Of both classes, spoof first, for both signals."""
    embedding = detector.embed(waves(n_samples), torch.full((2,), n_samples))
    return detector.head.output.linear(embedding)


def assert_equal(ours: torch.Tensor, published: list[float], tolerance: float) -> None:
    np.testing.assert_allclose(ours.numpy().ravel(), published, rtol=0, atol=tolerance)


# github.com/wenet-e2e/wespeaker, dfa7419, wespeaker/models/ecapa_tdnn.py: ECAPA_TDNN_GLOB_c512(48, 192, emb_bn=True);
# every 32nd number of two embeddings.
ECAPA = [
    -0.3257171625, -0.967953431, 0.3542754316, -0.4308367358, 0.08066251333, -1.573554701,
    -0.3889351284, -1.023977633, 0.2865597782, -0.3989813018, 0.06807993516, -1.590623143,
]  # fmt: skip


@torch.inference_mode()
def test_ecapa_equals_wespeakers() -> None:
    """What `read_frame` and `read_context` are here is one layer there, `pool.linear1`."""
    head = filled(UTTERANCE_HEADS["ecapa"](48, 1))
    embedding = head([draw("frames", 2, 37, 48)], torch.ones(2, 37, dtype=torch.bool))
    assert_equal(embedding[:, ::32], ECAPA, 1e-8)


# github.com/Security-FIT/RAT (Apache-2.0), 04eaf56, classifiers/differential/RAT.py: RAT, and RAT_zeroref, whose
# normalised reference is zeros, given three layers of 48 features, the logits spoof first; and the parameters of
# RAT(in_dim=1024) without an encoder.
RAT = [-0.3705205469, 0.3547902248, -0.4186634623, 0.4110500989]
RAT_ZERO_REFERENCE = [-0.4488305704, 0.5698295529, -0.411891791, 0.6153448951]
RAT_PARAMETERS = 13_254_402


@torch.inference_mode()
def test_rat_equals_its_authors_with_a_reference_and_with_zeros() -> None:
    head = filled(nn.ModuleDict({"head": UTTERANCE_HEADS["rat"](48, 4), "output": make_output(LossSettings(), 12, 2)}))
    # They have no frames of the encoder's input.
    tested, reference = (
        [torch.full((2, n_frames, 48), torch.nan), *(draw(f"{name} {layer}", 2, n_frames, 48) for layer in (1, 2, 3))]
        for name, n_frames in (("test", 37), ("reference", 23))
    )
    is_frame, is_reference = (torch.ones(2, n_frames, dtype=torch.bool) for n_frames in (37, 23))
    with_reference = head["head"](tested, is_frame, (reference, is_reference))
    assert_equal(head["output"].linear(with_reference), RAT, 1e-8)
    assert_equal(head["output"].linear(head["head"](tested, is_frame)), RAT_ZERO_REFERENCE, 1e-8)
    large = nn.ModuleList([UTTERANCE_HEADS["rat"](1024, 25), make_output(LossSettings(), 256, 2)])
    assert sum(parameter.numel() for parameter in large.parameters()) == RAT_PARAMETERS


# github.com/pandarialTJU/AttM_INTERSPEECH24, e3f5a90, model_file.py: AttM and my_LSTM, on WavLM/WavLM.py of
# github.com/microsoft/unilm, 768a3c8, which rounds layer norms to single precision. It puts a frame's layers side by
# side feature by feature, so the columns of its first projection are ours in another order.
ATTM = [-0.6697257071, 0.3156439583, -0.696181445, 0.2649261808]
# github.com/QiShanZhang/SLSforASVspoof-2021-DF, 82e8af0, model.py, its linear layers made for 32 features, on
# fairseq/models/wav2vec/wav2vec2.py of github.com/facebookresearch/fairseq, 3d262bb, which rounds likewise. Its output
# is the log-softmax of a SELU of the logits.
SLS = [-3.172438139, -0.04280449173, -4.874798924, -0.007665937968]


@torch.inference_mode()
def test_attm_equals_its_authors_from_waveform_to_logits_and_does_not_with_the_final_norm() -> None:
    detector = pre_norm_detector("WavLM", "lstm", "gated")
    assert_equal(logits(detector, 9_000), ATTM, 1e-6)
    detector.head.final_norm = True
    assert float((logits(detector, 9_000).flatten() - torch.tensor(ATTM)).abs().max()) > 0.05


@torch.inference_mode()
def test_sls_equals_its_authors_from_waveform_to_output_and_does_not_with_the_final_norm() -> None:
    detector = pre_norm_detector("Wav2Vec2", "sls", "all")
    assert_equal(F.log_softmax(F.selu(logits(detector, 64_600)), 1), SLS, 2e-5)
    detector.head.final_norm = True
    other = F.log_softmax(F.selu(logits(detector, 64_600)), 1)
    assert float((other.flatten() - torch.tensor(SLS)).abs().max()) > 0.5


# github.com/asvspoof-challenge/2021, 9b33f5e, LA/Baseline-RawNet2/model.py (log-softmax), and
# github.com/asvspoof-challenge/asvspoof5, fe23d30, Baseline-RawNet2/model.py (logits); both round the filters to single
# precision.
RAWNET2 = {
    "rawnet2": [-0.838228905, -0.5664718896, -0.8380366586, -0.5666184137],
    "rawnet2_asvspoof5": [0.04477480142, 0.3196421625, 0.04457585248, 0.3205355473],
}


@pytest.mark.parametrize("name", RAWNET2)
@torch.inference_mode()
def test_rawnet2_equals_the_official_baseline_of_its_challenge(name: str) -> None:
    detector = Detector(load_encoder(EncoderSettings(name="sinc-rawnet2")), name)
    filled(detector.head)
    n_samples = torch.tensor([9_000, 9_000])
    (hidden,), is_frame = detector.encoder(waves(9_000).float(), n_samples)
    output = detector.head.output.linear(detector.embed_layers([hidden.double()], is_frame))
    assert_equal(output if name == "rawnet2_asvspoof5" else F.log_softmax(output, 1), RAWNET2[name], 1e-7)


def authors_tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A tensor of a back-end under its authors' name, drawn by it; see `filled`."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    number = draw(name, *shape)
    if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
        return 1 + 0.3 * number
    return 0.3 * number if len(shape) < 2 else number * (3 / number[0].numel()) ** 0.5


def their_shape(name: str, ours: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that Nes2Net's authors give a tensor: convolutions of the mean over time, and time second to last."""
    if not name.startswith("Nested"):
        return ours
    if re.search(r"\.se\.se\.\d\.weight", name):
        return (*ours, 1)
    if ".convs." in name and name.endswith("weight"):
        return (*ours[:2], ours[3], ours[2])
    return (1, 1, 1, *ours) if "weighted_sum" in name else ours


# github.com/TakHemlata/SSL_Anti-spoofing at commit 4acaa61, model.py; github.com/Liu-Tianchi/Nes2Net_ASVspoof_ITW at
# 43d01b9, model_scripts/wav2vec2_Nes2Net_X.py: logit 1 of the back-ends, given the features instead of an encoder's.
# github.com/QiShanZhang/SLSforASVspoof-2021-DF at 82e8af0, model.py, made for 32 features, given three layers of them:
# the log-softmax, spoof first, of which the score here is the difference.
@pytest.mark.parametrize(
    ("head", "width", "features", "expected"),
    [
        ("aasist", 1024, ["features"], [-2.0152486324364562, -1.0240796868099924]),
        ("nes2net", 1024, ["features"], [-2.049252375213398, -2.0867608651124536]),
        (
            "sls",
            32,
            ["features 1", "features 2", "features 3"],
            [-1.102375283041352 + 0.4035889076822873, -1.071749553868631 + 0.41917201531731463],
        ),
    ],
)
@torch.inference_mode()
def test_a_back_end_above_xls_r_is_converted_under_its_authors_names(
    head: str, width: int, features: list[str], expected: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers as hf

    config = hf.Wav2Vec2Config(hidden_size=width, num_hidden_layers=len(features), num_attention_heads=2)
    with torch.device("meta"):
        network = hf.Wav2Vec2Model(config)
    monkeypatch.setattr(ssl_detectors, "_encoder", lambda inside, where: SimpleNamespace(network=network))
    back_end = next(one for one in ssl_detectors.BACK_ENDS if one.head == head)
    encoder = WaveEncoder(network, hf.Wav2Vec2FeatureExtractor(do_normalize=False))
    detector = Detector(encoder, head, back_end.layers)
    detector.score = back_end.score
    shapes = {
        ssl_detectors._their_name(head, name): tuple(t.shape) for name, t in detector.head.head.state_dict().items()
    }
    shapes |= {f"{back_end.last}weight": (2, detector.head.head.embedding_width), f"{back_end.last}bias": (2,)}
    tensors = {name: authors_tensor(name, their_shape(name, shape)) for name, shape in shapes.items()}
    found = ssl_detectors.from_ssl_detector(tensors | {"ssl_model.model.mask_emb": torch.zeros(1)}, "file")
    assert found.back_end == back_end
    detector.head.load_state_dict(found.state)
    layers = [draw(name, 2, 201, width) for name in features]
    if back_end.layers == "all":  # the encoder's input is not theirs
        layers.insert(0, torch.full_like(layers[0], torch.nan))
    detector.head.double().eval().output.float()  # in single precision, as it always computes
    score_B = detector.score_embedding(detector.embed_layers(layers, torch.ones(2, 201, dtype=torch.bool)))
    assert score_B.tolist() == pytest.approx(expected, rel=1e-5)
