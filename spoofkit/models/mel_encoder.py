"""Front-ends that read a log-mel spectrogram: Whisper's encoder and w2v-BERT 2.0.

Both spectrograms are computed here, in torch and on the device, utterance by utterance, equal to transformers' own
feature extractors; so nothing of one utterance depends on the others. Whisper runs on what there is, with its position
embeddings sliced, instead of on 30 s of padding.

Shapes: B batch, S samples, M mel frames, W samples of a window, F frequencies, C mel channels, T frames, D features.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from spoofkit.data.frames import FrameGeometry
from spoofkit.files import read_json, write_json
from spoofkit.models.encoder import Encoder, is_valid, key_mask

MEL_FAMILIES = ("whisper", "wav2vec2-bert")


class WhisperFrontEnd(Encoder):
    """Whisper's encoder (arXiv:2212.04356), on inputs of any length up to its position embeddings (30 s)."""

    mel_CF: torch.Tensor
    window_W: torch.Tensor
    saved_prefix = "encoder."  # `AutoModel` opens a whole Whisper; this is its encoder

    def __init__(self, network: Any, feature_extractor: Any) -> None:
        super().__init__(network, feature_extractor)
        self.width = network.config.d_model
        self.n_fft, self.mel_hop = feature_extractor.n_fft, feature_extractor.hop_length
        self.shortest = self.n_fft // 2 + 1  # the spectrogram reflects half a window at both ends
        self.longest = network.config.max_source_positions * 2 * self.mel_hop
        # Mel frame m is centred on sample 160 m; the stride-2 convolution keeps every second one and sees two more
        # on each side. n // 160 mel frames become (n // 160 + 1) // 2 frames = (n - 160) // 320 + 1.
        self.geometry = FrameGeometry(self.n_fft + 4 * self.mel_hop, 2 * self.mel_hop, self.mel_hop, 0)
        self.register_buffer("mel_CF", _filters(feature_extractor).float(), persistent=False)
        self.register_buffer("window_W", torch.hann_window(self.n_fft), persistent=False)

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer layers: see Encoder."""
        layers: nn.ModuleList = self.network.layers
        return layers

    @property
    def stem(self) -> list[nn.Module]:
        """See Encoder."""
        return [self.network.conv1, self.network.conv2]

    def embed(self, wave_BS: torch.Tensor, n_samples_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See Encoder."""
        mel_BCM = self.features(wave_BS, n_samples_B)
        hidden_BCM = F.gelu(self.network.conv1(mel_BCM))
        # Alone, an utterance is followed by the second convolution's own zeros.
        hidden_BCM = hidden_BCM * is_valid(n_samples_B // self.mel_hop, hidden_BCM.shape[2])[:, None]
        hidden_BTD = F.gelu(self.network.conv2(hidden_BCM)).transpose(1, 2)
        n_frames = hidden_BTD.shape[1]
        hidden_BTD = hidden_BTD + self.network.embed_positions.weight[:n_frames]
        is_dropping = self.network.training and not self.is_frozen_below_layers
        hidden_BTD = F.dropout(hidden_BTD, p=self.network.dropout, training=is_dropping)
        return hidden_BTD, is_valid(self.n_frames(n_samples_B), n_frames)

    def context(self, hidden_BTD: torch.Tensor, is_frame_BT: torch.Tensor) -> dict[str, Any]:
        """See Encoder."""
        return {"attention_mask": key_mask(is_frame_BT)}

    def finish(self, hidden_BTD: torch.Tensor) -> torch.Tensor:
        """See Encoder."""
        normal_BTD: torch.Tensor = self.network.layer_norm(hidden_BTD)
        return normal_BTD

    def parameters_above_layers(self) -> list[nn.Parameter]:
        """See Encoder."""
        return list(self.network.layer_norm.parameters())

    def save_network(self, folder: Path) -> None:
        """See Encoder; the decoder is not kept, so it has no layers."""
        super().save_network(folder)
        config = folder / "config.json"
        values = read_json(config) | {"architectures": ["WhisperModel"], "decoder_layers": 0}
        write_json(config, values, overwrite=True)

    def features(self, wave_BS: torch.Tensor, n_samples_B: torch.Tensor) -> torch.Tensor:
        """Compute log-mel spectrograms as transformers' WhisperFeatureExtractor does, (B, C, M), zero-padded."""
        return _spectrograms(self._log_mel, wave_BS, n_samples_B)

    def _log_mel(self, wave_S: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(wave_S, self.n_fft, self.mel_hop, window=self.window_W, center=True, return_complex=True)
        power_FM = spectrum[:, :-1].abs().square()  # Whisper drops the last frame
        log_CM = (self.mel_CF @ power_FM).clamp(min=1e-10).log10()
        log_CM = torch.maximum(log_CM, log_CM.max() - 8.0)
        return (log_CM + 4.0) / 4.0


class W2vBertFrontEnd(Encoder):
    """w2v-BERT 2.0 (arXiv:2312.05187): Kaldi's filter bank, two frames stacked, conformer layers.

    Its convolutions are causal and its position bias depends on distance alone, so masks on attention and convolution
    are all that padding needs.
    """

    WINDOW, HOP, N_FFT, PREEMPHASIS = 400, 160, 512, 0.97
    MEL_FLOOR = 1.192092955078125e-07
    mel_CF: torch.Tensor
    window_W: torch.Tensor

    def __init__(self, network: Any, feature_extractor: Any) -> None:
        super().__init__(network, feature_extractor)
        self.width = network.config.hidden_size
        self.n_stacked = feature_extractor.stride
        hop = self.n_stacked * self.HOP
        receptive_field = self.WINDOW + (self.n_stacked - 1) * self.HOP
        # An odd last mel frame is dropped, as transformers masks it.
        self.geometry = FrameGeometry(receptive_field, hop, receptive_field, receptive_field // 2)
        self.shortest = receptive_field
        self.register_buffer("mel_CF", _filters(feature_extractor), persistent=False)
        window_W = torch.from_numpy(np.asarray(feature_extractor.window)).double()
        self.register_buffer("window_W", window_W, persistent=False)

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer layers: see Encoder."""
        layers: nn.ModuleList = self.network.encoder.layers
        return layers

    @property
    def stem(self) -> list[nn.Module]:
        """See Encoder: it has no convolutions there; its projection is the nearest thing."""
        return [self.network.feature_projection]

    def embed(self, wave_BS: torch.Tensor, n_samples_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See Encoder."""
        hidden_BTD = self.network.feature_projection(self.features(wave_BS, n_samples_B).transpose(1, 2))[0]
        is_frame_BT = is_valid(self.n_frames(n_samples_B), hidden_BTD.shape[1])
        return self.network.encoder.dropout(hidden_BTD), is_frame_BT

    @property
    def below_layers(self) -> list[nn.Module]:
        """See Encoder."""
        return [self.network.encoder.dropout]

    def context(self, hidden_BTD: torch.Tensor, is_frame_BT: torch.Tensor) -> dict[str, Any]:
        """See Encoder."""
        positions = self.network.encoder.embed_positions
        return {
            "attention_mask": key_mask(is_frame_BT),
            "conv_attention_mask": None if bool(is_frame_BT.all()) else is_frame_BT,
            "relative_position_embeddings": None if positions is None else positions(hidden_BTD),
        }

    def features(self, wave_BS: torch.Tensor, n_samples_B: torch.Tensor) -> torch.Tensor:
        """Compute stacked filter banks as transformers' SeamlessM4TFeatureExtractor does, (B, C, T), zero-padded."""
        return _spectrograms(self._filter_bank, wave_BS, n_samples_B)

    def _filter_bank(self, wave_S: torch.Tensor) -> torch.Tensor:
        # In double precision, as the reference: a logarithm of little energy magnifies what single precision rounds.
        frames_MW = (wave_S.double() * 2**15).unfold(0, self.WINDOW, self.HOP)
        frames_MW = frames_MW - frames_MW.mean(1, keepdim=True)
        before_MW = torch.cat([frames_MW[:, :1], frames_MW[:, :-1]], dim=1)
        frames_MW = (frames_MW - self.PREEMPHASIS * before_MW) * self.window_W
        power_MF = torch.fft.rfft(frames_MW, self.N_FFT).abs().square()
        log_MC = (power_MF @ self.mel_CF.T).clamp(min=self.MEL_FLOOR).log()
        log_MC = (log_MC - log_MC.mean(0)) / torch.sqrt(log_MC.var(0, correction=1) + 1e-7)
        n_stacks = log_MC.shape[0] // self.n_stacked
        stacked_CT: torch.Tensor = log_MC[: n_stacks * self.n_stacked].reshape(n_stacks, -1).T.float()
        return stacked_CT


def _filters(feature_extractor: Any) -> torch.Tensor:
    """Return transformers' mel filters, (C, F)."""
    return torch.from_numpy(np.ascontiguousarray(feature_extractor.mel_filters.T)).double()


def _spectrograms(compute: Any, wave_BS: torch.Tensor, n_samples_B: torch.Tensor) -> torch.Tensor:
    """Apply `compute` to each utterance's own samples, (C, M) each, zero-padded to (B, C, M)."""
    with torch.no_grad(), torch.autocast(wave_BS.device.type, enabled=False):
        features = [compute(wave_S[:n]) for wave_S, n in zip(wave_BS.float(), n_samples_B.tolist(), strict=True)]
    longest = max(feature.shape[1] for feature in features)
    return torch.stack([F.pad(feature, (0, longest - feature.shape[1])) for feature in features])
