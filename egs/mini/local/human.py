"""Human voices: the set of each, and their active speech, decoded once.

From Debian: Asterisk prompts (16 kHz G.722, one voice a language, en and es the same), Tux Paint's stamp descriptions
(44.1 kHz Vorbis, volunteers, taken as one voice a language), the dialogues of Fish Fillets (two actors a language), and
single words from two KDE games, joined with their own short pauses. From `--speech DIR`: any recordings.
A voice belongs to one set only. See texts.py for what the voices say.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import compress
import disguise
import numpy as np
import soundfile
import vocoders

from spoofkit.data import audio
from spoofkit.errors import SpoofkitError
from spoofkit.files import atomic_path, read_json, write_json

SETS = ("train", "dev", "eval")
SHORTEST, LONGEST = 16_000, 51_200  # samples: a bona fide file lasts 1.0 to 3.2 s
SLOT = 2.4  # s of active speech that one file may claim for itself
LONGEST_RECORDING = 20 * 16_000  # samples of active speech kept of one recording
PACKAGES = [
    *(f"asterisk-core-sounds-{language}-g722" for language in ("en", "es", "fr", "it", "ru")),
    *("tuxpaint-stamps-default", "fillets-ng-data-cs", "fillets-ng-data-nl", "klettres-data", "ktuberling-data"),
]
G722_BYTES_PER_SECOND = 8_000
WORDS_JOINED = 6  # recordings of single words that are taken as one
LOWEST_RATE = 16_000  # Hz; a recording below it lacks a part of the band that all files have
NOT_SPEECH = ("silence", "beep", "ascending-2tone", "descending-2tone", "confbridge-join", "confbridge-leave")


@dataclass(frozen=True)
class Voice:
    """One human speaker."""

    name: str
    set_name: str
    gender: str
    """F, M, or empty if it is estimated from the pitch."""
    language: str
    """ISO code, or empty if it is unknown."""
    origin: str
    """Source of the recordings and their licence."""
    patterns: tuple[str, ...] = ()
    """Where its recordings are under /usr/share."""
    is_words: bool = False
    """Whether they are single words, to be joined."""
    recordings: tuple[Path, ...] = ()


_BY_SA = "CC BY-SA 3.0"


def _asterisk(set_name: str, languages: str, gender: str, speaker: str, licence: str = _BY_SA) -> Voice:
    patterns = tuple(f"asterisk/sounds/{language}_*/**/*.g722" for language in languages.split("-"))
    origin = f"Asterisk core sounds, {speaker}; {licence} (asterisk.org)"
    return Voice(f"asterisk-{languages}", set_name, gender, languages[:2], origin, patterns)


def _tuxpaint(set_name: str, language: str) -> Voice:
    origin = f"Tux Paint stamps, volunteers' descriptions in language {language}; GPL-2 (tuxpaint.org)"
    patterns = (f"tuxpaint/stamps/**/*_desc_{language}.ogg",)
    is_words = language in ("lt", "nl")  # they name the stamp and say no more
    return Voice(f"tuxpaint-{language}", set_name, "", language, origin, patterns, is_words)


def _fillets(set_name: str, language: str, fish: str, gender: str) -> Voice:
    origin = f"Fish Fillets NG, {fish} fish in language {language}; GPL-2 (fillets.sourceforge.net)"
    # A file is named level-speaker-line; m is the small fish (malá), v the big one (velká).
    letter = {"small": "m", "big": "v"}[fish]
    pattern = f"games/fillets-ng/sound/**/{language}/*-{letter}-*.ogg"
    return Voice(f"fillets-{language}-{fish}", set_name, gender, language, origin, (pattern,))


def _kde(set_name: str, game: str, *folders: str) -> list[Voice]:
    where = {"klettres": "klettres", "ktuberling": "ktuberling/sounds"}[game]
    return [
        Voice(
            f"{game}-{folder}",
            set_name,
            "",
            folder[:2] if len(folder.split("_")[0]) == 2 else folder,
            f"KDE {game}, volunteers' words in language {folder}; GPL-2+ (kde.org)",
            (f"{where}/{folder}/**/*.[ow][ga][gv]",),
            is_words=True,
        )
        for folder in folders
    ]


# Volunteers of one language are in one set, because they may be one person. Every set has as many male voices as female
# ones, give or take a few: where train lacks male ones, a detector takes them for synthesizers.
DEBIAN_VOICES = (
    _asterisk("train", "en-es", "F", "Allison Smith"),
    _asterisk("train", "fr", "F", "June Wallack"),
    *(_tuxpaint("train", language) for language in ("fr", "ro", "es", "ru", "bg", "lt")),
    _fillets("train", "cs", "small", "F"),
    _fillets("train", "cs", "big", "M"),
    *_kde("train", "klettres", "en", "en_GB", "es", "fr", "he", "lt", "nds", "ru"),
    *_kde("train", "ktuberling", "en", "fr", "gl", "lt", "ru"),
    _asterisk("dev", "ru", "F", "provided by Maxim Topal", "CC BY 3.0"),
    *(_tuxpaint("dev", language) for language in ("ca", "be")),
    *_kde("dev", "klettres", "hu", "uk"),
    *_kde("dev", "ktuberling", "ca", "uk"),
    _asterisk("eval", "it", "M", "Carlo Flora"),
    *(_tuxpaint("eval", language) for language in ("el", "da", "nl")),
    _fillets("eval", "nl", "small", "F"),
    _fillets("eval", "nl", "big", "M"),
    *_kde("eval", "klettres", "da", "de", "it", "nl", "pt_BR", "tn"),
    *_kde("eval", "ktuberling", "da", "de", "el", "sl", "wa"),
)


def debian_voices(root: Path) -> list[Voice]:
    """Find the recordings of DEBIAN_VOICES under the unpacked packages.

    Raises:
        SpoofkitError: a voice has no recordings.
    """
    voices = []
    for voice in DEBIAN_VOICES:
        found = [path for pattern in voice.patterns for path in (root / "usr/share").glob(pattern)]
        voices.append(_with_recordings(voice, [path for path in found if _is_usable(path, voice)], root))
    return voices


def _is_usable(path: Path, voice: Voice) -> bool:
    if path.suffix == ".g722":
        # A prompt below a second (some are empty) gives no file; G.722 is 8,000 bytes a second.
        is_speech = path.parent.name != "silence" and path.stem not in NOT_SPEECH
        return is_speech and path.stat().st_size >= G722_BYTES_PER_SECOND
    if not voice.is_words:
        return True
    try:
        info = soundfile.info(path)
    except soundfile.LibsndfileError:
        return False  # a few are in a format that only KDE's player reads
    return info.samplerate >= LOWEST_RATE


def folder_voices(folder: Path, seed: int) -> list[Voice]:
    """Read the voices of a folder of recordings: a speaker is a sub-folder, otherwise each file's parent.

    Raises:
        SpoofkitError: there is no folder, no audio, or there are fewer than three speakers.
    """
    if not folder.is_dir():
        raise SpoofkitError(f"{folder}: no such folder, expected human recordings in one sub-folder per speaker")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in audio.EXTENSIONS and path.is_file())
    speakers: dict[str, list[Path]] = {}
    for path in found:
        inside = path.relative_to(folder).parts
        speakers.setdefault(inside[0] if len(inside) > 1 else path.parent.name, []).append(path)
    if len(speakers) < len(SETS):
        raise SpoofkitError(
            f"{folder}: found {len(found)} recordings of {len(speakers)} speakers, expected at least {len(SETS)} "
            f"(one sub-folder each), because train, dev and eval share none"
        )
    names = sorted(speakers)
    np.random.default_rng([seed, zlib.crc32(b"speakers")]).shuffle(names)
    n_dev, n_eval = max(1, round(len(names) * 0.2)), max(1, round(len(names) * 0.3))
    set_names = ["dev"] * n_dev + ["eval"] * n_eval + ["train"] * (len(names) - n_dev - n_eval)
    origin = f"speaker given with --speech; licence: see the source of {folder.name}"
    return [
        _with_recordings(Voice(name, set_name, "", "", f"{name}, {origin}"), speakers[name], folder)
        for name, set_name in sorted(
            zip(names, set_names, strict=True), key=lambda pair: (SETS.index(pair[1]), pair[0])
        )
    ]


def _with_recordings(voice: Voice, found: Sequence[Path], place: Path) -> Voice:
    if not found:
        raise SpoofkitError(
            f"{place}: holds no recordings of {voice.name}; fetch the packages again into an empty cache"
        )
    return replace(voice, recordings=tuple(sorted(found)))


@dataclass(frozen=True)
class Speech:
    """A voice's decoded active speech: one int16 array on disk, and the place of each recording in it."""

    voice: Voice
    path: Path
    bounds: tuple[int, ...]
    """Sample positions; recording r is bounds[r] to bounds[r + 1]."""
    gender: str
    skipped: tuple[str, ...] = ()
    """Recordings of single words that cannot be read, and why."""

    @property
    def n_slots(self) -> int:
        """The number of files that can be cut from it."""
        return sum(slots_of(end - start) for start, end in pairwise(self.bounds))

    def read(self, start: int, end: int) -> np.ndarray:
        """Read part of it as float64 in [-1, 1]."""
        return np.load(self.path, mmap_mode="r")[start:end] / 32768


def decode_voice(voice: Voice, folder: Path, n_slots: int, seed: int) -> Speech:
    """Decode a voice's recordings, in drawn order, until there is speech for `n_slots` files; kept in `folder`.

    Raises:
        SpoofkitError: a recording cannot be decoded, or all of them together are too short.
    """
    path, record = folder / f"{voice.name}.npy", folder / f"{voice.name}.json"
    if not record.exists() or read_json(record)["n_slots"] < n_slots:
        order = np.random.default_rng([seed, zlib.crc32(voice.name.encode())]).permutation(len(voice.recordings))
        n_joined = WORDS_JOINED if voice.is_words else 1
        pieces: list[np.ndarray] = []
        skipped: list[str] = []
        for first in range(0, len(order), n_joined):
            paths = [voice.recordings[number] for number in order[first : first + n_joined]]
            wave_S = _read_words(paths, skipped) if voice.is_words else _read(paths[0])
            speech_S = disguise.active_speech(wave_S)[:LONGEST_RECORDING]
            if len(speech_S) >= SHORTEST + 2 * disguise.MARGIN:
                pieces.append(np.round(np.clip(speech_S, -1, 1) * 32767).astype(np.int16))
            if sum(slots_of(len(piece)) for piece in pieces) >= n_slots:
                break
        if not pieces:
            raise SpoofkitError(
                f"{voice.name}: none of {len(voice.recordings)} recordings holds {SHORTEST / 16_000:.1f} s of speech; "
                f"give longer ones"
            )
        bounds = np.cumsum([0, *map(len, pieces)]).tolist()
        with atomic_path(path, overwrite=True) as temporary:
            np.save(temporary, np.concatenate(pieces))
        gender = voice.gender or ("F" if _median_pitch(np.concatenate(pieces[:30]) / 32768) > 160 else "M")
        found = {"n_slots": n_slots, "bounds": bounds, "gender": gender, "skipped": skipped}
        write_json(record, found, overwrite=True)
    content = read_json(record)
    return Speech(voice, path, tuple(content["bounds"]), content["gender"], tuple(content["skipped"]))


def slots_of(n_samples: int) -> int:
    """Compute how many files can be cut from a recording with this much active speech."""
    if n_samples < SHORTEST + 2 * disguise.MARGIN:
        return 0
    return max(1, int(n_samples / 16_000 / SLOT))


def _read(path: Path) -> np.ndarray:
    if path.suffix == ".g722":
        return compress.decode_g722(path.read_bytes())
    return audio.read_audio(path).astype(np.float64)


def _read_words(paths: Sequence[Path], skipped: list[str]) -> np.ndarray:
    """Read recordings of single words one after the other; `skipped` gets those that are damaged or empty, and why."""
    waves = [np.zeros(0)]
    for path in paths:
        try:
            waves.append(_read(path))
        except SpoofkitError as error:
            skipped.append(str(error))
    return np.concatenate(waves)


def _median_pitch(wave_S: np.ndarray) -> float:
    pitch_T = vocoders.pitch(wave_S)
    return float(np.median(pitch_T[pitch_T > 0])) if (pitch_T > 0).any() else 0.0
