"""The plan of every file, drawn before any is made: speaker, length, source, codec and id.

The plan depends only on the seed and on how much speech each voice has, so any worker can make any file, in any order,
with the same bytes. The released lists and ORIGIN.tsv are written from it.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import disguise
import human
import numpy as np
from attacks import Attack, SyntheticVoice
from compress import EVAL_CODECS, Codec
from texts import Texts

from spoofkit.errors import SpoofkitError

BONAFIDE = "bonafide"
COMFORTABLE = 28_800  # samples, 1.8 s: shorter recordings are used only where the longer ones do not suffice
SHORTEST_SHARE = 0.6  # of the speech there is, where that is more than a second
SET_LETTER = {"train": "T", "dev": "D", "eval": "E"}
PROTOCOLS = {"train": "ASVspoof5.train.tsv", "dev": "ASVspoof5.dev.track_1.tsv", "eval": "ASVspoof5.eval.track_1.tsv"}
AUDIO_FOLDERS = {"train": "flac_T", "dev": "flac_D", "eval": "flac_E_eval"}


SPOOFS_PER_BONAFIDE = {"train": 1.0, "dev": 1.0, "eval": 1.5}  # in eval, so that each tier has enough


def n_spoofs(set_name: str, n_bonafide: int) -> int:
    """Compute how many spoofed files a set has."""
    return round(SPOOFS_PER_BONAFIDE[set_name] * n_bonafide)


@dataclass(frozen=True)
class PlannedFile:
    """One file of the corpus."""

    set_name: str
    index: int
    """Index in the set; with the seed and the set it determines every random draw of this file."""
    group: str
    """`bonafide` or the attack's label in this set."""
    tier: str
    """How far the attack is from train (attacks.TIERS); `-` if bona fide."""
    utt_id: str
    speaker: str
    gender: str
    n_samples: int
    codec: Codec | None
    seed_id: str
    """Id of the utterance before coding; `-` if it is not coded."""
    voice: str
    """Human or synthetic voice."""
    start: int
    """Where the human speech to cut from begins in the voice's array, in samples; -1 if it is synthesized from text."""
    end: int
    language: str

    @property
    def path(self) -> str:
        """The file's path, relative to the corpus."""
        return f"{AUDIO_FOLDERS[self.set_name]}/{self.utt_id}.flac"

    @property
    def protocol_line(self) -> str:
        """The line of the released list: ten columns separated by spaces."""
        key = BONAFIDE if self.group == BONAFIDE else "spoof"
        if self.codec is not None:
            codec, quality = self.codec.codec, self.codec.quality
        else:
            codec, quality = "-", "0" if self.set_name == "eval" else "-"
        return " ".join(
            [self.speaker, self.utt_id, self.gender, codec, quality, self.seed_id, self.tier, self.group, key, "-"]
        )


@dataclass(frozen=True)
class _Piece:
    """Human speech for one bona fide file."""

    speech: human.Speech
    start: int
    end: int
    n_samples: int


def plan_set(
    set_name: str,
    n_bonafide: int,
    n_spoof: int,
    speeches: Sequence[human.Speech],
    attacks: Sequence[Attack],
    texts: Texts,
    seed: int,
) -> list[PlannedFile]:
    """Plan one set.

    Args:
        set_name: train, dev or eval.
        n_bonafide: Human files wanted.
        n_spoof: Spoofed files wanted, shared evenly by the attacks.
        speeches: The set's human voices.
        attacks: The set's attacks.
        texts: Sentences by (set, language).
        seed: Seed of the corpus.

    Raises:
        SpoofkitError: the voices have too little speech.
    """
    rng = np.random.default_rng([seed, human.SETS.index(set_name)])
    pieces = _bonafide_pieces(set_name, n_bonafide, speeches, rng)
    speakers = _speaker_ids(set_name, speeches, attacks)
    n_files = n_bonafide + n_spoof
    numbers = rng.permutation(2 * n_files)
    files: list[PlannedFile] = []
    codecs = itertools.cycle(EVAL_CODECS)

    def add(
        group: str, tier: str, place: int, n_samples: int, voice: str, gender: str, start: int, end: int, language: str
    ) -> None:
        index = len(files)
        # One of every four files of every group is coded, by each codec in turn: both classes are balanced.
        # It is the first of one four, the second of the next: a group's voices take turns, and all are to be coded.
        is_coded = set_name == "eval" and place % 4 == place // 4 % 4
        codec = next(codecs) if is_coded else None
        letter = SET_LETTER[set_name]
        seed_id = f"{letter}_{numbers[n_files + index]:010d}" if is_coded else "-"
        utt_id = f"{letter}_{numbers[index]:010d}"
        files.append(
            PlannedFile(
                set_name,
                index,
                group,
                tier,
                utt_id,
                speakers[voice],
                gender,
                n_samples,
                codec,
                seed_id,
                voice,
                start,
                end,
                language,
            )
        )

    for place, piece in enumerate(pieces):
        voice = piece.speech.voice
        add(
            BONAFIDE,
            "-",
            place,
            piece.n_samples,
            voice.name,
            piece.speech.gender,
            piece.start,
            piece.end,
            voice.language,
        )
    # Spoofs take their lengths and, if they have human sources, their voices from the bona fide files in turn.
    models = [pieces[number % n_bonafide] for number in np.resize(rng.permutation(n_bonafide), n_spoof)]
    for number, attack in enumerate(attacks):
        for place, model in enumerate(models[number :: len(attacks)]):
            if attack.copy is not None:
                start, end = _recording_for(model, rng)
                voice = model.speech.voice
                spoken, gender, language = voice.name, model.speech.gender, voice.language
            else:
                voices = attack.voices_of(set_name)
                synthetic = voices[place % len(voices)]
                start = end = -1
                language = _language_for(synthetic, model.speech.voice.language, set_name, texts, rng)
                spoken, gender = synthetic.name, synthetic.gender
            add(attack.labels[set_name], attack.tier, place, model.n_samples, spoken, gender, start, end, language)
    return files


def _bonafide_pieces(
    set_name: str, n_files: int, speeches: Sequence[human.Speech], rng: np.random.Generator
) -> list[_Piece]:
    slots = {speech.voice.name: _slots(speech, rng) for speech in speeches}
    n_slots = sum(map(len, slots.values()))
    if n_slots < n_files:
        raise SpoofkitError(
            f"the {set_name} voices {', '.join(slots)} hold speech for {n_slots} files of 1.0 to 3.2 s, "
            f"expected {n_files}; give more or longer recordings"
        )
    taken = _even_shares({name: len(found) for name, found in slots.items()}, n_files)
    pieces = [
        _Piece(speech, start, end, _draw_length(end - start, rng))
        for speech in speeches
        for start, end in slots[speech.voice.name][: taken[speech.voice.name]]
    ]
    return [pieces[number] for number in rng.permutation(n_files)]


def _draw_length(n_available: int, rng: np.random.Generator) -> int:
    """Draw a file's length in samples, given how much speech there is to cut it from."""
    longest = min(human.LONGEST, n_available - 2 * disguise.MARGIN)
    return int(rng.integers(max(human.SHORTEST, int(SHORTEST_SHARE * longest)), longest + 1))


def _slots(speech: human.Speech, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Cut a voice's recordings into parts, one per file, in drawn order, with parts of a comfortable length first."""
    slots = []
    for start, end in zip(speech.bounds[:-1], speech.bounds[1:], strict=True):
        n_parts = human.slots_of(end - start)
        edges = np.linspace(start, end, n_parts + 1).astype(int)
        slots += [(int(a), int(b)) for a, b in itertools.pairwise(edges)]
    drawn = [slots[number] for number in rng.permutation(len(slots))]
    return sorted(drawn, key=lambda slot: slot[1] - slot[0] < COMFORTABLE)


def _even_shares(available: dict[str, int], wanted: int) -> dict[str, int]:
    """Distribute `wanted` as evenly as the available numbers allow.

    >>> _even_shares({"a": 2, "b": 10, "c": 10}, 12)
    {'a': 2, 'b': 5, 'c': 5}
    """
    shares = dict.fromkeys(available, 0)
    while wanted:
        open_names = [name for name in available if shares[name] < available[name]]
        step = max(1, wanted // len(open_names))
        for name in open_names:
            taken = min(step, available[name] - shares[name], wanted)
            shares[name] += taken
            wanted -= taken
    return shares


def _recording_for(model: _Piece, rng: np.random.Generator) -> tuple[int, int]:
    """Draw a recording of the model's voice that is long enough for a copy of the model's length."""
    bounds = np.array(model.speech.bounds)
    fitting = np.flatnonzero(np.diff(bounds) >= model.n_samples + 2 * disguise.MARGIN)
    number = int(fitting[rng.integers(len(fitting))])
    return int(bounds[number]), int(bounds[number + 1])


def _language_for(
    voice: SyntheticVoice, model_language: str, set_name: str, texts: Texts, rng: np.random.Generator
) -> str:
    """Choose the language of the bona fide file that gave the length, if the voice speaks it."""
    possible = [language for language in voice.languages if (set_name, language) in texts]
    if not possible:
        raise SpoofkitError(
            f"{voice.name} speaks {', '.join(voice.languages)}, but there are no such texts for {set_name}"
        )
    return model_language if model_language in possible else possible[int(rng.integers(len(possible)))]


def _speaker_ids(set_name: str, speeches: Sequence[human.Speech], attacks: Sequence[Attack]) -> dict[str, str]:
    names = [speech.voice.name for speech in speeches] + [
        voice.name for attack in attacks for voice in attack.voices_of(set_name)
    ]
    return {name: f"{SET_LETTER[set_name]}_{number:04d}" for number, name in enumerate(names, start=1)}
