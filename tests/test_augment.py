"""Augmentation: what was asked for, nothing moved, nothing shared between utterances, the same every time."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
from conftest import make_voice
from hypothesis import given, settings
from hypothesis import strategies as st

from spoofkit.config import load_config
from spoofkit.data import rawboost as rb
from spoofkit.data.acoustics import add_noise, reverberate
from spoofkit.data.audio import SAMPLE_RATE, read_audio
from spoofkit.data.augment import (
    Augmenter,
    AugmentPlan,
    Drawn,
    augment_batch,
    augment_inputs,
    augment_item,
    change_speed,
    leading_silence,
    load_augmenter,
    mask_time,
    read_noise,
    read_rir,
    stack,
)
from spoofkit.data.codecs import NAMES, apply_codec, bit_rate, require_codec
from spoofkit.data.dataset import Batch, Item, MixDataset, TrainingOrder, UtteranceDataset, collate
from spoofkit.data.frames import WAV2VEC2_GEOMETRY
from spoofkit.data.loading import load_batches
from spoofkit.data.manifest import Manifest, read_manifest
from spoofkit.data.mixdraw import draw_mixes
from spoofkit.data.rawboost import KINDS, rawboost
from spoofkit.data.settings import AugmentSettings
from spoofkit.errors import SpoofkitError
from spoofkit.settings import Config

ALL_KINDS = tuple(KINDS)


@pytest.fixture(scope="session")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with noises (one short, one long, one at 22 kHz) and rooms (one whose direct path comes late)."""
    folder, rng = tmp_path_factory.mktemp("sounds"), np.random.default_rng(7)
    for name, seconds, rate in (("noise/short.wav", 0.2, 16_000), ("noise/a/long.flac", 4, 16_000)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, 0.1 * rng.standard_normal(int(seconds * rate)), rate)
    soundfile.write(folder / "noise/a/other_rate.wav", 0.1 * rng.standard_normal(44_100), 22_050)
    (folder / "rooms").mkdir()
    for name, late, seconds in (("small", 0, 0.1), ("large", 300, 0.4), ("endless", 40, 2.0)):
        n = int(seconds * 16_000)
        rir = 0.05 * rng.standard_normal(n) * np.exp(-5 * np.arange(n) / n)
        rir = np.concatenate([0.01 * rng.standard_normal(late), [-0.6], rir])
        soundfile.write(folder / f"rooms/{name}.wav", rir, 16_000, subtype="FLOAT")
    return folder


def all_on(sounds: Path, **changes: object) -> AugmentSettings:
    shares = {"reverb": 0.5, "noise": 0.5, "codec": 0.4, "rawboost": 0.5, "codecs": ["mulaw", "gsm"]}
    folders = {"noise_folder": str(sounds / "noise"), "reverb_folder": str(sounds / "rooms")}
    return AugmentSettings.model_validate(shares | folders | {"rawboost_kinds": list(ALL_KINDS)} | changes)


def voices(n_samples: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """A padded batch and its lengths."""
    waves = [torch.from_numpy(4 * make_voice(seed, seed % 2 == 0, 2.0)[:n]) for seed, n in enumerate(n_samples)]
    return torch.nn.utils.rnn.pad_sequence(waves, batch_first=True), torch.tensor(n_samples)


def snr_db(wave: np.ndarray, noise: np.ndarray) -> float:
    return float(10 * np.log10(np.sum(np.square(wave, dtype=float)) / np.sum(np.square(noise, dtype=float))))


# RawBoost


def scipy_notches(seed: int, number: int, gains_db: str) -> list[np.ndarray]:
    """The filters of a seed, built as the authors' program builds them: firwin, convolve, freqz."""
    rng = np.random.default_rng((seed, number))
    gain_db = np.append(0.0, rng.uniform(-20, -5, 4)) if gains_db == "powers" else np.zeros(1)
    if gains_db != "powers":
        rng.uniform(10, 40)  # the noise's level is drawn first
    shape = (gain_db.size, 5)
    centre, width = rng.uniform(20, 8000, shape), rng.uniform(100, 1000, shape)
    n_taps = rng.integers(10, 100, shape)
    filters = []
    for row in range(gain_db.size):
        taps = np.ones(1)
        for c, w, n in zip(centre[row], width[row], n_taps[row], strict=True):
            edges = [max(c - w / 2, 1e-3), min(c + w / 2, 8000 - 1e-3)]
            taps = np.convolve(scipy.signal.firwin(n if n % 2 else n + 1, edges, fs=16_000, window="hamming"), taps)
        _, response = scipy.signal.freqz(taps, 1, fs=16_000)
        filters.append(10 ** (gain_db[row] / 20) * taps / np.abs(response).max())
    return filters


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_convolutive_noise_is_the_sum_of_filtered_powers(seed: int) -> None:
    wave_BS, n_samples_B = voices([9000])
    found = rb.convolutive_noise(wave_BS, n_samples_B, [seed])[0].numpy()
    wave = wave_BS[0].numpy().astype(np.float64)
    # "same" keeps the middle, so the filters' own delay is taken out.
    expected = sum(
        scipy.signal.convolve(wave**power, taps, mode="same")
        for power, taps in enumerate(scipy_notches(seed, 1, "powers"), start=1)
    )
    expected -= expected.mean()
    expected /= max(1.0, np.abs(expected).max())
    assert np.abs(found - expected).max() < 1e-5
    assert np.abs(found - wave).max() > 1e-2


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_stationary_noise_has_the_spectrum_of_its_filter(seed: int) -> None:
    wave_BS, n_samples_B = voices([32_000])
    noise = (rb.stationary_noise(wave_BS, n_samples_B, [seed]) - wave_BS)[0].numpy()
    assert 10 <= snr_db(wave_BS[0].numpy(), noise) <= 40
    hertz, power = scipy.signal.welch(noise, SAMPLE_RATE, nperseg=512)
    (taps,) = scipy_notches(seed, 3, "one")
    _, response = scipy.signal.freqz(taps, 1, worN=hertz, fs=SAMPLE_RATE)
    expected = np.abs(response) ** 2
    found = power / power.sum() * expected.sum()
    assert np.corrcoef(found, expected)[0, 1] > 0.9
    if expected.min() < 0.05:  # a deep notch is one in the noise too
        assert found[expected < 0.05].mean() < 0.2


def test_stationary_noise_is_drawn_between_10_and_40_db() -> None:
    wave_BS, n_samples_B = voices([2000] * 60)
    noise_BS = rb.stationary_noise(wave_BS, n_samples_B, list(range(60))) - wave_BS
    found = [snr_db(wave, noise) for wave, noise in zip(wave_BS.numpy(), noise_BS.numpy(), strict=True)]
    assert 9.99 < min(found) < 14
    assert 36 < max(found) < 40.01


def test_impulsive_noise_multiplies_up_to_a_tenth_of_the_samples_by_up_to_three() -> None:
    wave_BS, n_samples_B = voices([20_000] * 40)
    wave_BS = wave_BS / 4  # nothing reaches full scale, so nothing is scaled
    assert wave_BS.abs().max() * 3 < 1
    factor_BS = rb.impulsive_noise(wave_BS, n_samples_B, list(range(40))) / wave_BS
    share_B = (factor_BS != 1).float().mean(dim=1)
    assert share_B.min() < 0.01
    assert 0.085 < share_B.max() < 0.11
    changed = factor_BS[factor_BS != 1] - 1
    assert 1.9 < changed.abs().max() <= 2.0001
    # A product of two uniform numbers: mean 0, variance 1/9.
    assert abs(float(changed.mean())) < 0.02
    assert abs(float((changed / 2).var()) - 1 / 9) < 0.005


def test_kinds_are_applied_in_the_order_in_which_they_are_named() -> None:
    wave_BS, n_samples_B = voices([5000, 4000])
    one = rb.convolutive_noise(wave_BS, n_samples_B, [1, 2])
    assert torch.equal(
        rawboost(wave_BS, n_samples_B, [1, 2], ["convolutive", "impulsive"]),
        rb.impulsive_noise(one, n_samples_B, [1, 2]),
    )


def test_what_rawboost_makes_louder_than_full_scale_is_scaled_to_it() -> None:
    wave_BS, n_samples_B = voices([8000, 4000])
    wave_BS = wave_BS * (0.999 / wave_BS.abs().amax(dim=1, keepdim=True))
    found = [rawboost(wave_BS, n_samples_B, [seed, 9], ["impulsive"])[0].abs().max() for seed in range(20)]
    assert float(max(found)) == pytest.approx(1.0)
    assert sum(abs(float(peak) - 1) < 1e-6 for peak in found) > 5


# Room and noise


def test_reverberation_is_a_convolution_at_the_level_that_was(sounds: Path) -> None:
    wave_BS, n_samples_B = voices([9000, 5000])
    rirs = [read_rir(sounds / f"rooms/{name}.wav") for name in ("small", "large")]
    rir_BK = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(rir) for rir in rirs], batch_first=True)
    found = reverberate(wave_BS, n_samples_B, rir_BK).numpy()
    for row, n in enumerate(n_samples_B.tolist()):
        wave = wave_BS[row, :n].numpy().astype(np.float64)
        wet = scipy.signal.fftconvolve(wave, rirs[row])[:n]
        expected = wet * np.sqrt(np.sum(wave**2) / np.sum(wet**2))
        assert np.abs(found[row, :n] - expected).max() < 1e-5
        assert np.abs(expected - wave).max() > 1e-2
        assert not found[row, n:].any()


def test_a_room_begins_with_its_direct_path(sounds: Path) -> None:
    stored, _ = soundfile.read(sounds / "rooms/large.wav", dtype="float32")
    rir = read_rir(sounds / "rooms/large.wav")
    assert rir[0] == 1  # whatever its sign was
    assert np.allclose(rir, stored[300:] / stored[300])
    assert read_rir(sounds / "rooms/endless.wav").size == SAMPLE_RATE


@settings(max_examples=40, deadline=None)
@given(snr=st.floats(-20, 60), level=st.floats(1e-4, 10), seed=st.integers(0, 99))
def test_noise_has_the_ratio_that_was_asked_for(snr: float, level: float, seed: int) -> None:
    wave_BS, n_samples_B = voices([3000, 1200])
    noise_BS = level * torch.randn(2, 3000, generator=torch.Generator().manual_seed(seed))
    noisy_BS = add_noise(wave_BS.double(), n_samples_B, noise_BS.double(), torch.tensor([snr, 3.0])).numpy()
    for row, (n, expected) in enumerate(((3000, snr), (1200, 3.0))):
        wave = wave_BS[row, :n].double().numpy()
        assert snr_db(wave, noisy_BS[row, :n] - wave) == pytest.approx(expected, abs=1e-3)
        assert not noisy_BS[row, n:].any()  # though its noise went on


def test_a_noise_is_a_part_of_its_file_or_the_file_over_and_over(sounds: Path) -> None:
    long, _ = soundfile.read(sounds / "noise/a/long.flac", dtype="float32")
    assert np.array_equal(read_noise(sounds / "noise/a/long.flac", 0.0, 1000), long[:1000])
    assert np.array_equal(read_noise(sounds / "noise/a/long.flac", 0.999999, 1000), long[-1000:])
    short = read_audio(sounds / "noise/short.wav")
    found = read_noise(sounds / "noise/short.wav", 0.25, 10_000)
    assert np.array_equal(found[: short.size - short.size // 4], short[short.size // 4 :])
    assert np.array_equal(found[short.size :], found[: -short.size])
    assert read_noise(sounds / "noise/a/other_rate.wav", 0.5, 20_000).size == 20_000


# Codecs


def usable_codecs() -> list[str]:
    usable = []
    for name in NAMES:
        try:
            require_codec(name)
        except SpoofkitError:
            continue
        usable.append(name)
    return usable


@pytest.mark.parametrize("name", usable_codecs())
@pytest.mark.parametrize("choice", [0.0, 0.999])
def test_a_codec_changes_a_voice_and_leaves_it_where_it_was(name: str, choice: float) -> None:
    # Silence, a voice, silence: the delay was measured on something else, and longer.
    wave = np.pad(6 * make_voice(4, True, 1.2), (3000, 2500)).astype(np.float32)
    wave /= 1.2 * np.abs(wave).max()
    coded = apply_codec(wave, name, choice)
    assert (coded.dtype, coded.shape) == (np.float32, wave.shape)
    low = scipy.signal.butter(6, 2500, output="sos", fs=SAMPLE_RATE)  # what every codec keeps
    smooth, smooth_coded = (scipy.signal.sosfiltfilt(low, x) for x in (wave, coded))
    lags = np.arange(-200, 201)
    likeness = [float(np.dot(smooth[400:-400], smooth_coded[400 + lag : smooth.size - 400 + lag])) for lag in lags]
    assert abs(lags[int(np.argmax(likeness))]) <= 2  # an eighth of a millisecond
    assert snr_db(smooth, smooth - smooth_coded) > 1
    assert snr_db(wave, wave - coded) < 60
    assert np.abs(coded[:2000]).max() < 0.1 * np.abs(coded).max()
    assert np.array_equal(apply_codec(wave, name, choice), coded)


@pytest.mark.parametrize("name", usable_codecs())
def test_silence_and_very_short_or_loud_waveforms_go_through_every_codec(name: str) -> None:
    assert np.abs(apply_codec(np.zeros(5000, dtype=np.float32), name)).max() < 2e-3
    for wave in (make_voice(1, True)[:401], 200 * make_voice(2, False)[:3000]):
        coded = apply_codec(wave.astype(np.float32), name)
        assert coded.shape == wave.shape
        assert np.isfinite(coded).all()
        assert np.abs(coded).max() < 2
    loud = (200 * make_voice(2, False)[:3000]).astype(np.float32)
    assert np.abs(apply_codec(loud, name) - apply_codec(loud / np.abs(loud).max(), name)).max() < 1e-3


@pytest.mark.parametrize(("law", "codec"), [("mulaw", "pcm_mulaw"), ("alaw", "pcm_alaw")])
def test_g711_gives_ffmpegs_values(law: str, codec: str) -> None:
    import av

    from spoofkit.data.codecs import _g711_levels, _quantised

    pcm = np.arange(-32_768, 32_768, dtype=np.int16)
    out, back = av.CodecContext.create(codec, "w"), av.CodecContext.create(codec, "r")
    for context in (out, back):
        context.sample_rate, context.layout = 8000, "mono"
    out.format = "s16"
    frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
    frame.sample_rate = 8000
    blocks = [f.to_ndarray() for packet in out.encode(frame) for f in back.decode(packet)]
    theirs = np.concatenate(blocks, axis=1)[0].astype(np.float64)
    ours = _quantised(_g711_levels(law), (pcm / 32_768).astype(np.float32)) * 32_768
    assert np.array_equal(np.unique(ours), np.unique(theirs))
    # Where they differ, both levels are equally near, or FFmpeg, which drops two bits first, is a little further off.
    differs = ours != theirs
    assert differs.mean() < 0.05
    assert np.all(np.abs(pcm - ours) <= np.abs(pcm - theirs))
    assert np.abs(np.abs(pcm - theirs) - np.abs(pcm - ours)).max() <= 8


def test_mulaw_at_16_khz_only_rounds_each_sample() -> None:
    from spoofkit.data.codecs import _g711_levels

    wave = make_voice(3, True, 0.5)
    coded, levels = apply_codec(wave, "mulaw_16k"), _g711_levels("mulaw")
    assert np.isin(coded, levels.astype(np.float32)).all()
    assert np.array_equal(np.abs(coded - wave), np.abs(levels.astype(np.float32)[:, None] - wave).min(axis=0))


def test_gsm_is_libsndfiles() -> None:
    import soxr

    wave = make_voice(3, True, 0.5)
    file = io.BytesIO()
    soundfile.write(file, soxr.resample(np.pad(wave, (0, 4096)), 16_000, 8000), 8000, format="WAV", subtype="GSM610")
    file.seek(0)
    expected = soxr.resample(soundfile.read(file, dtype="float32")[0], 8000, 16_000)[: wave.size]
    assert np.array_equal(apply_codec(wave, "gsm"), expected)


def test_a_choice_walks_through_all_bit_rates() -> None:
    rates = [bit_rate("mp3", choice) for choice in np.linspace(0, 0.9999, 50)]
    assert sorted(set(rates)) == rates[:1] + sorted(set(rates[1:]) - {rates[0]})
    assert len(set(rates)) == 4


def test_a_codec_that_ffmpeg_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from spoofkit.data import codecs

    monkeypatch.setitem(codecs.FFMPEG, "mp3", ("libshine_of_old", "mp3", 16_000, (16_000,)))
    with pytest.raises(SpoofkitError, match=r"augment\.codecs: the FFmpeg of this machine lacks mp3"):
        load_augmenter(AugmentSettings(codec=0.5, codecs=["mp3"]), 0)
    unused = load_augmenter(AugmentSettings(rawboost=0.5, codecs=["mp3"]), 0)  # codec: 0, so nobody asks for it
    assert unused.settings.rawboost == 0.5


# Speed


def test_speed_changes_length_and_pitch_together() -> None:
    tone = np.sin(2 * np.pi * 400 * np.arange(32_000) / SAMPLE_RATE).astype(np.float32)
    for factor in (0.9, 1.1, 1.37):
        changed = change_speed(tone, factor)
        assert abs(changed.size - 32_000 / factor) <= 1
        assert changed.dtype == np.float32
        peak = np.abs(np.fft.rfft(changed[:16_000])).argmax() * SAMPLE_RATE / 16_000
        assert peak == pytest.approx(400 * factor, abs=1.0)


@pytest.mark.parametrize("factor", [0.83, 0.9, 1.1, 1.37])
def test_a_faster_crop_is_as_long_as_any_other(factor: float, manifests: Path) -> None:
    config = load_config(None, ["crop_samples=6001", "mix.min_region_samples=800"])
    manifest = read_manifest(manifests / "train.tsv")
    augmenter = load_augmenter(AugmentSettings(speed=1.0, speed_factors=[factor]), 0)
    dataset, plain = UtteranceDataset(manifest, config, augmenter=augmenter), UtteranceDataset(manifest, config)
    for index in range(4):
        assert 6000 <= dataset[0, index].wave_S.size <= 6001
        assert dataset[0, index].wave_S.std() != pytest.approx(plain[0, index].wave_S.std(), rel=1e-6)


# Leading silence, time mask


@pytest.mark.parametrize(
    ("silence", "sound", "expected"),
    [(8_000, 20_000, 8_000), (8_050, 20_000, 8_000), (8_000, 14_000, 6_000), (8_000, 4_000, 0), (0, 20_000, 0)],
)
def test_leading_silence_ends_with_the_first_sound_and_a_second_is_left(
    silence: int, sound: int, expected: int
) -> None:
    hiss = 1e-4 * np.random.default_rng(0).standard_normal(silence)  # 66 dB below the sound
    wave = np.concatenate([hiss, 0.2 * np.random.default_rng(1).standard_normal(sound)]).astype(np.float32)
    assert leading_silence(wave) == expected
    assert leading_silence(np.zeros_like(wave)) == 0


@pytest.mark.parametrize(("share", "place"), [(0.2, 0.0), (0.5, 0.9999), (0.3, 0.5), (0.0, 0.3), (1.0, 0.7)])
def test_a_time_mask_is_one_stretch_of_the_share_asked_for(share: float, place: float) -> None:
    wave = np.linspace(1, 2, 1001, dtype=np.float32)
    masked = mask_time(wave, share, place)
    zeros = np.flatnonzero(masked == 0)
    assert zeros.size == int(share * 1001)
    assert wave.min() == 1
    if zeros.size:
        assert zeros[0] == pytest.approx(place * (1001 - zeros.size), abs=1)
        assert np.array_equal(zeros, np.arange(zeros[0], zeros[0] + zeros.size))
    assert np.array_equal(np.delete(masked, zeros), np.delete(wave, zeros))


def test_crops_of_a_trimmed_utterance_hold_none_of_its_leading_silence(tmp_path: Path, manifests: Path) -> None:
    """A crop begins anywhere after the silence: a second of it in front changes what no crop holds."""
    manifest = read_manifest(manifests / "train.tsv")
    rows = manifest.table.head(4)
    for path in rows["path"]:
        voice = np.concatenate([read_audio(manifest.audio_path(path))] * 3)
        (tmp_path / path).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / path, np.concatenate([np.zeros(16_000), voice]), SAMPLE_RATE)
    table = rows.with_columns(n_samples=3 * rows["n_samples"] + 16_000)
    manifest = Manifest(tmp_path / "train.tsv", tmp_path, table)
    config = load_config(None, ["crop_samples=8000"])
    trimming, masking = AugmentSettings(trim=1.0), AugmentSettings(trim=1.0, time_mask=1.0, time_mask_share=(0.4, 0.4))
    plain, trimmed, masked = (
        UtteranceDataset(manifest, config, augmenter=load_augmenter(chosen, 0))
        for chosen in (AugmentSettings(), trimming, masking)
    )
    keys = [(epoch, index) for epoch in range(12) for index in range(4)]
    assert any(not plain[key].wave_S[:160].any() for key in keys)
    assert all(trimmed[key].wave_S[:160].any() and trimmed[key].wave_S.size == 8000 for key in keys)
    assert all((masked[key].wave_S == 0).sum() == pytest.approx(3200, abs=20) for key in keys)


# All of it together


def padded_and_drawn(sounds: Path) -> tuple[torch.Tensor, torch.Tensor, list[Drawn]]:
    wave_BS, n_samples_B = voices([9000, 400, 20_000, 7000, 3333])
    room, noise = read_rir(sounds / "rooms/large.wav"), sounds / "noise/a/long.flac"
    drawn = [
        Drawn(rawboost_seed=1),
        Drawn(room, read_noise(noise, 0.1, 400), 10.0, 2),
        Drawn(),
        Drawn(room[:500], snr_db=5.0),
        Drawn(noise_S=read_noise(noise, 0.9, 3333), snr_db=-3.0, rawboost_seed=5),
    ]
    return wave_BS, n_samples_B, drawn


def test_a_row_does_not_depend_on_the_batch_and_padding_stays_zero(sounds: Path) -> None:
    wave_BS, n_samples_B, drawn = padded_and_drawn(sounds)
    chosen = all_on(sounds)
    before = wave_BS.clone()
    found = augment_batch(wave_BS, n_samples_B, stack(drawn), chosen)
    assert torch.equal(wave_BS, before)
    assert torch.equal(found[2], wave_BS[2])  # nothing was drawn for it
    for row, n in enumerate(n_samples_B.tolist()):
        alone = augment_batch(wave_BS[row : row + 1, :n], n_samples_B[row : row + 1], stack([drawn[row]]), chosen)
        assert (found[row, :n] - alone[0]).abs().max() < 2e-6
        assert not found[row, n:].any()
        if row != 2:
            assert (found[row] - wave_BS[row]).abs().max() > 1e-3
    again = augment_batch(wave_BS, n_samples_B, stack(drawn), chosen)
    assert torch.equal(found, again)


def test_autocast_does_not_reach_the_augmentation(sounds: Path) -> None:
    wave_BS, n_samples_B, drawn = padded_and_drawn(sounds)
    expected = augment_batch(wave_BS, n_samples_B, stack(drawn), all_on(sounds))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = augment_batch(wave_BS, n_samples_B, stack(drawn), all_on(sounds))
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_silence_stays_finite_and_silent(sounds: Path) -> None:
    _, n_samples_B, drawn = padded_and_drawn(sounds)
    found = augment_batch(torch.zeros(5, 20_000), n_samples_B, stack(drawn), all_on(sounds))
    assert torch.equal(found, torch.zeros(5, 20_000))
    silent = Drawn(noise_S=np.zeros(20_000, dtype=np.float32), snr_db=0.0)
    wave_BS, _ = voices([20_000])
    assert torch.equal(augment_batch(wave_BS, n_samples_B[2:3], stack([silent]), all_on(sounds)), wave_BS)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**40), position=st.integers(0, 7999), kind=st.sampled_from([*ALL_KINDS, "room"]))
def test_an_impulse_stays_where_it_was(seed: int, position: int, kind: str, sounds: Path) -> None:
    wave_BS, n_samples_B = torch.zeros(2, 9000), torch.tensor([8000, 9000])
    wave_BS[0, position] = wave_BS[1, 8999 - position] = 0.5
    drawn = Drawn(rawboost_seed=seed) if kind != "room" else Drawn(read_rir(sounds / "rooms/large.wav"))
    kinds = ALL_KINDS if kind == "room" else [kind]
    found = augment_batch(wave_BS, n_samples_B, stack([drawn, drawn]), AugmentSettings(rawboost_kinds=kinds))
    assert int(found[0].abs().argmax()) == position
    assert int(found[1].abs().argmax()) == 8999 - position


def test_what_happens_to_an_item_follows_from_seed_epoch_and_index(sounds: Path) -> None:
    chosen = all_on(sounds, speed=0.5)
    plans = {
        (seed, epoch, index): load_augmenter(chosen, seed).plan(epoch, index)
        for seed in (0, 1)
        for epoch in (0, 1)
        for index in range(20)
    }
    assert len(set(plans.values())) == len(plans)
    for (seed, epoch, index), plan in plans.items():
        assert load_augmenter(chosen, seed).plan(epoch, index) == plan


def test_shares_are_shares_and_do_not_hang_together(sounds: Path) -> None:
    chosen = all_on(sounds, speed=0.3, reverb=0.2, noise=0.6, codec=0.4, rawboost=0.7, trim=0.5, time_mask=0.25)
    augmenter = load_augmenter(chosen, 0)
    plans = [augmenter.plan(0, index) for index in range(2000)]
    is_on = np.array(
        [
            [
                p.speed != 1,
                p.rawboost_seed >= 0,
                p.trim,
                *(one is not None for one in (p.rir, p.noise, p.codec, p.mask)),
            ]
            for p in plans
        ]
    )
    assert np.abs(is_on.mean(axis=0) - [0.3, 0.7, 0.5, 0.2, 0.6, 0.4, 0.25]).max() < 0.05
    assert np.abs(np.corrcoef(is_on.T) - np.eye(7)).max() < 0.1
    assert {p.codec for p in plans} == {None, "mulaw", "gsm"}
    assert {p.rir for p in plans} == {None, *(sounds / "rooms").glob("*.wav")}
    assert len({p.noise for p in plans}) == 4  # three files at two depths, and none
    levels = [p.snr_db for p in plans if p.noise]
    assert 5 <= min(levels) < 5.5
    assert 19.5 < max(levels) <= 20
    lengths, places = zip(*(p.mask for p in plans if p.mask), strict=True)
    assert 0.2 <= min(lengths) < 0.21
    assert 0.49 < max(lengths) <= 0.5
    assert abs(np.corrcoef(lengths, places)[0, 1]) < 0.1


def test_switching_one_kind_off_changes_nothing_in_the_others(sounds: Path) -> None:
    both, one = (load_augmenter(all_on(sounds, noise=share), 3) for share in (0.5, 0.0))
    for index in range(50):
        a, b = both.plan(1, index), one.plan(1, index)
        assert b.noise is None
        assert (a.rir, a.codec, a.bit_rate_choice, a.rawboost_seed) == (
            b.rir,
            b.codec,
            b.bit_rate_choice,
            b.rawboost_seed,
        )


def test_a_codec_comes_after_room_and_noise(sounds: Path) -> None:
    wave = 4 * make_voice(1, True, 1.0)
    plan = AugmentPlan(rir=sounds / "rooms/small.wav", noise=sounds / "noise/a/long.flac", snr_db=0.0, rawboost_seed=9)
    surrounded, left = augment_item(wave, plan)
    assert np.array_equal(surrounded, wave)
    assert (left.rir_K.size, left.noise_S.size, left.snr_db, left.rawboost_seed) == (1601, 16_000, 0.0, 9)
    without_boost = Drawn(left.rir_K, left.noise_S, left.snr_db)
    expected = augment_batch(
        torch.from_numpy(wave)[None], torch.tensor([wave.size]), stack([without_boost]), AugmentSettings()
    )
    coded, left = augment_item(wave, AugmentPlan(plan.speed, plan.rir, plan.noise, 0.0, 0.0, "mulaw", 0.0, 9))
    assert left == Drawn(rawboost_seed=9)
    assert np.array_equal(coded, apply_codec(expected[0].numpy(), "mulaw"))
    # A telephone carries nothing above 4 kHz, noise neither.
    power = np.abs(np.fft.rfft(coded)) ** 2
    assert power[len(power) * 9 // 16 :].sum() < 1e-4 * power.sum()


def test_frame_targets_and_lengths_hold_and_each_epoch_is_another(manifests: Path, sounds: Path) -> None:
    config = load_config(
        None, ["crop_samples=8000", "mix.n_train=12", "mix.min_region_samples=800", "mix.margin_samples=400"]
    )
    manifest = read_manifest(manifests / "train.tsv")
    mix_list = draw_mixes(config, manifest)
    augmenter = load_augmenter(all_on(sounds, reverb=0.9), config.seed)
    plain, augmented = (
        MixDataset(mix_list, manifest, WAV2VEC2_GEOMETRY, "region", which) for which in (None, augmenter)
    )
    pairs = [(epoch, index) for epoch in (0, 1) for index in range(12)]
    items = [plain[pair] for pair in pairs]
    before = collate(items)
    assert before.drawn is None
    assert before.augmented(augmenter.settings) is before
    after = collate([augmented[pair] for pair in pairs]).augmented(augmenter.settings)
    assert after.drawn is None
    assert after.utt_ids == before.utt_ids
    for name in ("n_samples_B", "targets_BT", "is_far_BT", "is_bonafide_B"):
        assert torch.equal(getattr(after, name), getattr(before, name))
    assert after.wave_BS.shape == before.wave_BS.shape
    assert torch.isfinite(after.wave_BS).all()
    for index in range(12):
        assert torch.equal(before.wave_BS[index], before.wave_BS[12 + index])
        assert not torch.equal(after.wave_BS[index], after.wave_BS[12 + index])


def test_loader_processes_change_nothing(manifests: Path, sounds: Path) -> None:
    config = Config(crop_samples=8000)
    augmenter = load_augmenter(all_on(sounds, speed=0.5), 4)
    dataset = UtteranceDataset(read_manifest(manifests / "train.tsv"), config, augmenter=augmenter)

    def batches(workers: int) -> list[Batch]:
        order = TrainingOrder(len(dataset), 6, seed=4, first_step=0, n_steps=4)
        with load_batches(dataset, order, workers=workers, shortest=400) as found:
            return [batch.augmented(augmenter.settings) for batch in found]

    for a, b in zip(batches(0), batches(2), strict=True):
        assert torch.equal(a.wave_BS, b.wave_BS)
        assert torch.equal(a.n_samples_B, b.n_samples_B)


def test_a_batch_takes_what_was_drawn_with_it_to_a_device(sounds: Path) -> None:
    _, _, drawn = padded_and_drawn(sounds)
    items = [Item(f"u{row}", make_voice(row, True)[:9000], drawn=found) for row, found in enumerate(drawn)]
    moved = collate(items).to(torch.device("meta"))
    for tensor in (moved.drawn.rir_RK, moved.drawn.noise_RS, moved.drawn.snr_db_R, moved.wave_BS, moved.is_far_BT):
        assert tensor.device.type == "meta"
    assert moved.drawn.rawboost_rows == [0, 1, 4]


# Settings


def test_nothing_is_augmented_unless_asked_for(manifests: Path) -> None:
    config = Config()
    for stage in (config.posttrain, config.finetune):
        assert not stage.augment.is_on
        assert load_augmenter(stage.augment, 0) is None
    assert augment_inputs(None) == {}


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("finetune.augment={noise: 0.5}", "noise_folder: is not set, and noise: 0.5 needs sounds from it"),
        ("finetune.augment={reverb: 0.5}", "reverb_folder: is not set, and reverb: 0.5 needs sounds from it"),
        ("finetune.augment={noise_snr_db: [9, 3]}", "the first number must not be above the second, found 9 and 3"),
        ("posttrain.augment={speed: 0.5}", "augment.speed: 0.5 would move the injected regions of mixes"),
        ("finetune.augment={codecs: [mp4]}", "finetune.augment.codecs"),
        ("finetune.augment={codecs: []}", "finetune.augment.codecs"),
        ("finetune.augment={rawbost: 1}", "did you mean 'rawboost'?"),
        ("finetune.augment={speed_factors: [0]}", "finetune.augment.speed_factors"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(override: str, sentence: str) -> None:
    with pytest.raises(SpoofkitError) as caught:
        load_config(None, [override])
    assert sentence in str(caught.value)


@pytest.mark.parametrize("kind", ["noise", "reverb"])
def test_a_sound_that_cannot_be_read_is_met_at_the_start(kind: str, sounds: Path, tmp_path: Path) -> None:
    """Met when it is drawn, it would end the run, and every run that takes it up."""
    folder = Path(shutil.copytree(sounds / "rooms", tmp_path / "sounds"))
    chosen = AugmentSettings(**{kind: 0.5, f"{kind}_folder": str(folder)})
    load_augmenter(chosen, 0)
    (folder / "junk.wav").write_bytes(b"RIFF, but no sound")
    with pytest.raises(SpoofkitError, match=r"junk\.wav"):
        load_augmenter(chosen, 0)


def test_a_folder_without_sounds_is_refused(sounds: Path, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(SpoofkitError, match=f"augment.noise_folder: no audio in {folder}, expected a folder with"):
            load_augmenter(AugmentSettings(noise=0.5, noise_folder=str(folder)), 0)
    soundfile.write(tmp_path / "silent.wav", np.zeros(100), SAMPLE_RATE)
    with pytest.raises(SpoofkitError, match="is digital silence, expected a room impulse response"):
        read_rir(tmp_path / "silent.wav")


def test_inputs_name_the_sounds_that_are_drawn_from(sounds: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.ones(100), SAMPLE_RATE)
    chosen = AugmentSettings(noise=0.5, noise_folder=str(tmp_path), reverb_folder=str(sounds / "rooms"))
    first = augment_inputs(load_augmenter(chosen, 0))
    assert first.keys() == {"noise"}
    assert augment_inputs(load_augmenter(chosen, 5)) == first
    soundfile.write(tmp_path / "b.wav", np.ones(100), SAMPLE_RATE)
    assert augment_inputs(load_augmenter(chosen, 0)) != first


def test_a_sound_that_breaks_after_the_start_is_named(sounds: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sounds / "rooms", tmp_path / "sounds"))
    augmenter = load_augmenter(AugmentSettings(noise=1.0, noise_folder=str(folder)), 0)
    assert isinstance(augmenter, Augmenter)
    for path in folder.iterdir():
        path.write_bytes(b"no audio" * 99)
    with pytest.raises(SpoofkitError, match=r"\.wav: neither libsndfile nor FFmpeg can decode it"):
        augment_item(make_voice(0, True), augmenter.plan(0, 0))
