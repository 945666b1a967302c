"""The whole build: fetch, decode, plan, make, check, describe, measure the trivial cues."""

from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import attacks
import compress
import cues
import fetch
import generate
import human
import numpy as np
import plan
import soundfile
import synthesize
import texts
from describe import write_origin, write_readme
from tqdm import tqdm

from spoofkit.errors import SpoofkitError
from spoofkit.files import write_text
from spoofkit.terminal import say

FLITE_AND_FESTIVAL = [*synthesize.FLITE_PACKAGES, *synthesize.FESTIVAL_PACKAGES]


def produce(out: Path, cache: Path, settings: dict[str, Any], speech: Path | None, jobs: int) -> None:
    """Make everything but the stamp; resume an interrupted build."""
    seed = settings["seed"]
    chosen = [
        attack
        for attack in attacks.ATTACKS
        if not (settings["without_debian"] and attack.from_debian)
        and (not settings["only"] or set(settings["only"]) & set(attack.labels.values()))
    ]
    compress.check_encoders()
    wanted = ([] if speech else human.PACKAGES) + (
        FLITE_AND_FESTIVAL if any(attack.from_debian for attack in chosen) else []
    )
    voices = human.folder_voices(speech, seed) if speech else []
    root = fetch.fetch_packages(cache, wanted) if wanted else None
    if any(attack.engine for attack in chosen):
        synthesize.check_engines(root)
    if root is not None and not speech:
        voices = human.debian_voices(root)
        sentences = texts.captions(root)
    else:
        sentences = texts.made_up_sentences(seed)

    n_files = dict(zip(human.SETS, settings["files"], strict=True))
    with generate.workers(jobs) as pool:
        speeches = _decode(voices, n_files, out / ".work" / "voices", seed, pool)
        files = []
        for set_name, n_wanted in n_files.items():
            set_speeches = [speech for speech in speeches if speech.voice.set_name == set_name]
            set_attacks = [attack for attack in chosen if set_name in attack.labels]
            files += plan.plan_set(
                set_name, n_wanted, plan.n_spoofs(set_name, n_wanted), set_speeches, set_attacks, sentences, seed
            )
        studio = generate.Studio(out, seed, {speech.voice.name: speech for speech in speeches}, sentences, root)
        generate.make_files(files, studio, pool)
        _check(files, out)
        rows = _measure_cues(files, out, pool)
    cues.write_table(out / "cues.tsv", rows)
    write_origin(out / "ORIGIN.tsv", files, speeches, chosen)
    write_readme(out / "README.txt", settings, chosen)
    for set_name, protocol in plan.PROTOCOLS.items():
        lines = sorted((file.utt_id, file.protocol_line) for file in files if file.set_name == set_name)
        write_text(out / protocol, "".join(f"{line}\n" for _, line in lines), overwrite=True)
    print(cues.text_table(rows))
    hours = sum(file.n_samples for file in files) / 16_000 / 3600
    print(f"{out}: {len(files):,} files, {hours:.2f} h, {len(chosen)} attacks")


def _decode(
    voices: list[human.Voice], n_files: dict[str, int], folder: Path, seed: int, pool: Executor | None
) -> list[human.Speech]:
    """Decode each voice until there is speech for twice its even share of its set's files, or all of it."""
    folder.mkdir(parents=True, exist_ok=True)
    n_voices = {set_name: sum(voice.set_name == set_name for voice in voices) for set_name in human.SETS}
    tasks = [(voice, 2 * -(-n_files[voice.set_name] // n_voices[voice.set_name])) for voice in voices]
    speeches: dict[str, human.Speech] = {}
    while tasks:
        with tqdm(total=len(tasks), desc="human voices", unit="voice") as bar:
            for (voice, _), speech in generate.in_parallel(pool, _decode_one, tasks, folder, seed):
                speeches[voice.name] = speech
                bar.update()
        # The shares of speakers with little speech go to the others of their set.
        n_slots = dict.fromkeys(human.SETS, 0)
        for speech in speeches.values():
            n_slots[speech.voice.set_name] += speech.n_slots
        # Only a voice that gave what was asked of it may have more.
        tasks = [
            (voice, 2 * n_asked)
            for voice, n_asked in tasks
            if n_slots[voice.set_name] < n_files[voice.set_name] and speeches[voice.name].n_slots >= n_asked
        ]
    if skipped := [reason for speech in speeches.values() for reason in speech.skipped]:
        say(f"recordings of single words that cannot be read, and are left out: {len(skipped)} (first: {skipped[0]})")
    return [speeches[voice.name] for voice in voices]


def _decode_one(task: tuple[human.Voice, int], folder: Path, seed: int) -> human.Speech:
    voice, n_slots = task
    return human.decode_voice(voice, folder, n_slots, seed)


def _check(files: list[plan.PlannedFile], out: Path) -> None:
    """Check that every planned file exists in its planned length, and no other file."""
    for file in files:
        info = soundfile.info(str(out / file.path))
        found = (info.frames, info.samplerate, info.channels, info.subtype)
        if found != (file.n_samples, 16_000, 1, "PCM_16"):
            raise SpoofkitError(
                f"{out / file.path}: is {found}, expected {file.n_samples} samples; remove it and run again"
            )
    planned = {file.path for file in files}
    for folder in plan.AUDIO_FOLDERS.values():
        for leftover in (out / folder).glob(".*.tmp.flac"):  # of a build that was killed
            leftover.unlink()
        strangers = [path.name for path in (out / folder).glob("[!.]*") if f"{folder}/{path.name}" not in planned]
        if strangers:
            raise SpoofkitError(
                f"{out / folder}: holds {len(strangers)} files that do not belong, first {strangers[0]}; "
                f"remove them and run again"
            )


def _measure_cues(files: list[plan.PlannedFile], out: Path, pool: Executor | None) -> list[cues.CueRow]:
    chosen = [file for file in files if file.set_name != "dev"]
    parts = [chosen[start : start + 200] for start in range(0, len(chosen), 200)]
    measured = {}
    with tqdm(total=len(chosen), desc="trivial cues", unit="file") as bar:
        for part, values in generate.in_parallel(pool, _measure_part, parts, out):
            measured.update(zip((file.utt_id for file in part), values, strict=True))
            bar.update(len(part))
    train, evaluation = ([file for file in chosen if file.set_name == name] for name in ("train", "eval"))
    return cues.cue_table(
        [measured[file.utt_id] for file in train],
        np.array([file.group == plan.BONAFIDE for file in train]),
        [measured[file.utt_id] for file in evaluation],
        np.array([file.tier for file in evaluation]),
    )


def _measure_part(part: list[plan.PlannedFile], out: Path) -> list[dict[str, float]]:
    return [cues.measure(out / file.path) for file in part]
