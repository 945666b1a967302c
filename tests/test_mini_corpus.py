"""The mini corpus builder of egs/mini/local, on generated voice-like signals: no network, no synthesizer needed."""

import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

LOCAL = Path(__file__).parents[1] / "egs" / "mini" / "local"
sys.path.insert(0, str(LOCAL))

import attacks  # noqa: E402
import build_corpus  # noqa: E402
import compress  # noqa: E402
import cues  # noqa: E402
import disguise  # noqa: E402
import fetch  # noqa: E402
import generate  # noqa: E402
import human  # noqa: E402
import plan  # noqa: E402
import texts  # noqa: E402
import vocoders  # noqa: E402

from spoofkit.corpora import asvspoof5  # noqa: E402
from spoofkit.errors import SpoofkitError  # noqa: E402

RATE = 16_000
ONLY = ("A01", "A14", "A29")  # copy-synthesis alone: a near, a mid and a far attack, nothing to install
N_FILES = (6, 4, 20)  # twenty place every codec of the eval set in each class


def voice_like(pitch_hz: float, seconds: float, seed: int = 0) -> np.ndarray:
    """Harmonics under two formants, four syllables a second."""
    rng = np.random.default_rng(seed)
    instants = np.arange(int(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(pitch_hz * (1 + 0.05 * np.sin(2 * np.pi * 0.7 * instants))) / RATE
    wave = np.zeros_like(instants)
    for harmonic in range(1, int(5000 / pitch_hz)):
        hertz = harmonic * pitch_hz
        gain = sum(np.exp(-(((hertz - formant) / 250) ** 2)) for formant in (500, 1500, 2500)) + 0.05
        wave += gain * np.cos(harmonic * phase + rng.uniform(0, 6))
    envelope = 0.55 + 0.45 * np.sin(2 * np.pi * 4 * instants)
    return 0.1 * wave * envelope / np.abs(wave).max() * 5 + 1e-4 * rng.standard_normal(len(instants))


@pytest.fixture(scope="session")
def speech_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speech")
    for speaker, pitch_hz in (("anna", 210), ("bert", 115), ("carl", 130), ("dora", 190)):
        for number in range(6):
            path = folder / speaker / f"{number}.flac"
            path.parent.mkdir(exist_ok=True)
            soundfile.write(path, voice_like(pitch_hz, 11, seed=number), RATE)
    return folder


def build(out: Path, speech: Path, **changes) -> None:
    settings = {"speech": speech, "n_files": N_FILES, "only": ONLY, "without_debian": True, "jobs": 1, **changes}
    build_corpus.build(out, out.parent / "cache", **settings)


@pytest.fixture(scope="session")
def corpus(speech_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "corpus"
    build(out, speech_folder)
    return out


def rows_of(corpus: Path, set_name: str) -> list[list[str]]:
    return [line.split(" ") for line in (corpus / plan.PROTOCOLS[set_name]).read_text().splitlines()]


def hashes(corpus: Path) -> dict[str, str]:
    files = sorted(path for path in corpus.rglob("*") if path.is_file())
    return {str(path.relative_to(corpus)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_our_reader_of_the_released_layout_reads_it(corpus):
    for set_name, n_files in zip(human.SETS, N_FILES, strict=True):
        tiers = {"near"} if set_name == "train" else {"near", "mid"} if set_name == "dev" else {"near", "far"}
        table = asvspoof5.read(corpus, sets=(set_name,))[0].table
        assert table["key"].to_list().count("bonafide") == n_files
        assert table["key"].to_list().count("spoof") == plan.n_spoofs(set_name, n_files)
        assert set(table.filter(table["key"] == "spoof")["attack_tag"]) == tiers
        assert set(table.filter(table["key"] == "bonafide")["attack_tag"]) == {"-"}
        assert table["utt_id"].is_sorted()
        for path in table["path"]:
            info = soundfile.info(corpus / path)
            assert (info.samplerate, info.channels, info.subtype, info.format) == (RATE, 1, "PCM_16", "FLAC")


def test_spoofs_have_the_lengths_of_bona_fide_files(corpus):
    for set_name in human.SETS:
        lengths: dict[str, list[int]] = {"bonafide": [], "spoof": []}
        for row in rows_of(corpus, set_name):
            path = corpus / plan.AUDIO_FOLDERS[set_name] / f"{row[1]}.flac"
            lengths[row[8]].append(soundfile.info(path).frames)
        n_surplus = len(lengths["spoof"]) - len(lengths["bonafide"])
        assert (Counter(lengths["bonafide"]) - Counter(lengths["spoof"])).total() == 0
        assert (Counter(lengths["spoof"]) - Counter(lengths["bonafide"])).total() == n_surplus
        assert set(lengths["spoof"]) == set(lengths["bonafide"])
        assert all(human.SHORTEST <= length <= human.LONGEST for length in lengths["spoof"])


def test_a_quarter_of_both_classes_is_coded_in_eval_and_nothing_elsewhere(corpus):
    for set_name in ("train", "dev"):
        assert {tuple(row[3:6]) for row in rows_of(corpus, set_name)} == {("-", "-", "-")}
    conditions: dict[str, list[tuple[str, ...]]] = {"bonafide": [], "spoof": []}
    for row in rows_of(corpus, "eval"):
        conditions[row[8]].append((row[3], row[4]))
        assert (row[3], row[4], row[5]) == ("-", "0", "-") or (row[3].startswith("C") and row[4].isdigit())
        assert row[5] == "-" or (row[5].startswith("E_") and len(row[5]) == 12 and row[5] != row[1])
    for found in conditions.values():
        n_coded = len(found) - found.count(("-", "0"))
        assert len(found) / 5 <= n_coded <= len(found) / 4  # fours of a group that are not full may have none
        assert set(found) == {("-", "0"), *((codec.codec, codec.quality) for codec in compress.EVAL_CODECS)}


def test_no_speaker_is_in_two_sets(corpus):
    origin = [line.split("\t") for line in (corpus / "ORIGIN.tsv").read_text().splitlines()]
    sets_of: dict[str, set[str]] = {}
    for row in origin:
        if row[0] == "speaker":
            sets_of.setdefault(row[6], set()).add(row[2])
    assert set(sets_of) == {"anna", "bert", "carl", "dora"}
    assert all(len(sets) == 1 for sets in sets_of.values())


def test_same_bytes_for_any_number_of_processes(corpus, speech_folder, tmp_path):
    build(tmp_path / "corpus", speech_folder, jobs=2)
    assert hashes(tmp_path / "corpus") == hashes(corpus)


def test_interrupted_build_goes_on_to_the_same_corpus(corpus, speech_folder, tmp_path, monkeypatch):
    out, write, made = tmp_path / "corpus", generate._write, []

    def write_five(path, pcm):
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append(path)
        write(path, pcm)

    monkeypatch.setattr(generate, "_write", write_five)
    with pytest.raises(KeyboardInterrupt):
        build(out, speech_folder)
    assert not (out / build_corpus.STAMP).exists()
    before = {path: path.stat().st_mtime_ns for path in made}
    monkeypatch.setattr(generate, "_write", write)
    build(out, speech_folder)
    assert hashes(out) == hashes(corpus)
    assert {path: path.stat().st_mtime_ns for path in made} == before


def test_complete_corpus_is_left_alone(corpus, speech_folder, capsys):
    before = hashes(corpus)
    build(corpus, speech_folder)
    assert "complete already" in capsys.readouterr().out
    assert hashes(corpus) == before


def test_other_settings_on_a_complete_corpus_are_refused(corpus, speech_folder):
    with pytest.raises(SpoofkitError, match="seed was 0 and is now 3"):
        build(corpus, speech_folder, seed=3)


def test_a_folder_of_something_else_is_refused(speech_folder, tmp_path):
    (tmp_path / "thesis.txt").write_text("chapter 1")
    with pytest.raises(SpoofkitError, match="is no corpus of this program"):
        build(tmp_path, speech_folder)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_two_speakers_are_too_few(speech_folder, tmp_path):
    for name in ("anna", "bert"):
        shutil.copytree(speech_folder / name, tmp_path / "two" / name)
    with pytest.raises(SpoofkitError, match="12 recordings of 2 speakers, expected at least 3"):
        build(tmp_path / "corpus", tmp_path / "two")


def test_too_little_speech_is_refused_with_both_numbers(speech_folder, tmp_path):
    with pytest.raises(SpoofkitError, match=r"hold speech for \d+ files of 1\.0 to 3\.2 s, expected 500"):
        build(tmp_path / "corpus", speech_folder, n_files=(500, 4, 10))


def test_a_recording_that_is_no_audio_is_named(speech_folder, tmp_path):
    shutil.copytree(speech_folder, tmp_path / "speech")
    for path in (tmp_path / "speech" / "carl").iterdir():
        path.write_bytes(b"no audio")
    with pytest.raises(SpoofkitError, match=r"carl/\d\.flac"):
        build(tmp_path / "corpus", tmp_path / "speech")


def test_a_users_mistake_is_one_sentence_and_exit_code_1(tmp_path):
    command = [
        sys.executable,
        str(LOCAL / "build_corpus.py"),
        str(tmp_path / "corpus"),
        "--cache",
        str(tmp_path / "cache"),
    ]
    done = subprocess.run([*command, "--speech", str(tmp_path / "nowhere")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "nowhere: no such folder" in done.stderr
    assert subprocess.run([*command, "--sped", "1"], capture_output=True, timeout=60).returncode == 2


@pytest.mark.parametrize("codec", compress.EVAL_CODECS, ids=lambda codec: f"{codec.codec}-{codec.quality}")
def test_eval_codecs_keep_length_and_alignment(codec):
    wave = voice_like(140, 1.3)[:-7]
    assert abs(lag_of(compress.through(codec, wave), wave)) <= 2


@pytest.mark.parametrize("through", [compress.through_g722, compress.through_vorbis])
def test_source_codecs_keep_length_and_alignment(through):
    wave = voice_like(140, 1.3)[:-7]
    assert lag_of(through(wave), wave) == 0


def lag_of(decoded: np.ndarray, wave: np.ndarray) -> int:
    assert len(decoded) == len(wave)
    n = 2 * len(wave)
    correlation = np.fft.irfft(np.fft.rfft(decoded, n) * np.conj(np.fft.rfft(wave, n)), n)
    lag = int(correlation.argmax())
    return lag if lag < n // 2 else lag - n


def test_pauses_are_shortened_and_ends_trimmed():
    voiced, silence = voice_like(140, 1.0), np.zeros(RATE)
    active = disguise.active_speech(np.concatenate([silence, voiced, silence, voiced, silence]))
    longest = 2 * len(voiced) + disguise.LONGEST_PAUSE * disguise.FRAME
    assert longest - 0.15 * RATE < len(active) < longest + 0.15 * RATE


def test_silence_holds_no_speech():
    assert len(disguise.active_speech(np.zeros(RATE))) == 0
    assert len(disguise.active_speech(np.zeros(10))) == 0


@pytest.mark.parametrize("gain", [0.001, 1.0])
def test_finished_files_have_the_same_level_band_and_fades_whatever_went_in(gain):
    for seed in range(4):
        piece = gain * (voice_like(140, 1.5) + 0.05 * np.random.default_rng(seed).standard_normal(24_000))
        finished = disguise.finish(piece, np.random.default_rng(seed)) / 32768
        level = 10 * np.log10((finished**2).mean())
        power = np.abs(np.fft.rfft(finished)) ** 2
        assert len(finished) == len(piece)
        assert disguise.LEVEL_DBFS[0] - 0.5 < level < disguise.LEVEL_DBFS[1] + 0.5
        assert 10 * np.log10(power[int(7300 * 1.5) :].sum() / power.sum()) < -28
        assert np.abs(finished[:20]).max() < 0.1 * np.abs(finished).max()


def test_a_silent_piece_is_no_file():
    with pytest.raises(RuntimeError, match="silent"):
        disguise.finish(np.zeros(RATE), np.random.default_rng(0))


@pytest.mark.parametrize("pitch_hz", [110, 220])
def test_pitch_is_found(pitch_hz):
    pitch = vocoders.pitch(voice_like(pitch_hz, 1.5))
    assert np.median(pitch[pitch > 0]) == pytest.approx(pitch_hz, rel=0.05)


@pytest.mark.parametrize(
    "attack",
    [attack for attack in attacks.ATTACKS if attack.copy is not None and "conversion" not in attack.description],
    ids=lambda attack: attack.description[:30],
)
def test_copies_keep_length_and_pitch(attack):
    wave = voice_like(150, 1.2)
    copy = attack.copy(wave, np.random.default_rng(0))
    pitch = vocoders.pitch(copy)
    assert copy.shape == wave.shape
    assert np.isfinite(copy).all()
    assert np.median(pitch[pitch > 0]) == pytest.approx(150, rel=0.06)
    assert not np.allclose(copy, wave, atol=1e-3)


@pytest.mark.parametrize("convert", [vocoders.convert_voice, vocoders.psola])
@pytest.mark.parametrize("factor", [0.8, 1.3])
def test_voice_conversion_moves_the_pitch(factor, convert):
    converted = convert(voice_like(150, 1.2), np.random.default_rng(0), factor, 1.05)
    assert len(converted) == int(1.2 * RATE)
    pitch = vocoders.pitch(converted)
    assert np.median(pitch[pitch > 0]) == pytest.approx(150 * factor, rel=0.06)


def test_mel_filters_leave_no_band_empty():
    for n_fft, n_mels in ((512, 80), (1024, 64)):
        assert (vocoders.mel_filters(n_fft, n_mels).sum(axis=1) > 0).all()


def test_the_table_of_attacks_holds_what_its_tiers_promise():
    voices = [voice.name for attack in attacks.ATTACKS for voice in attack.voices]
    assert len(set(voices)) == len(voices)
    for first, set_name, most in ((1, "train", 8), (9, "dev", 8), (17, "eval", 16)):
        labels = [attack.labels[set_name] for attack in attacks.ATTACKS if set_name in attack.labels]
        assert len(labels) <= most  # or the labels would be another set's in ASVspoof 5
        assert labels == [f"A{first + n:02d}" for n in range(len(labels))]
    for attack in attacks.ATTACKS:
        assert attack.tier in attacks.TIERS
        assert (attack.tier == "near") == ("train" in attack.labels)
        assert (attack.copy is None) != (attack.engine == "")
        assert not attack.voices or {voice.set_name for voice in attack.voices} == set(attack.labels)
    in_eval = [attack.tier for attack in attacks.ATTACKS if "eval" in attack.labels]
    assert all(in_eval.count(tier) >= 2 for tier in attacks.TIERS)
    assert {attack.tier for attack in attacks.ATTACKS if "neural" in attack.description} == {"far"}


def test_human_voices_belong_to_one_set_each():
    names = [voice.name for voice in human.DEBIAN_VOICES]
    set_of = {voice.name: voice.set_name for voice in human.DEBIAN_VOICES}
    assert len(set(names)) == len(names)
    assert Counter(set_of.values())["eval"] >= 15
    # One person may have spoken a language in both of KDE's games.
    for name in names:
        game, _, language = name.partition("-")
        if game == "klettres":
            assert set_of.get(f"ktuberling-{language}", set_of[name]) == set_of[name]


def test_even_shares_fill_up_where_one_voice_has_little():
    assert plan._even_shares({"a": 2, "b": 10, "c": 10}, 12) == {"a": 2, "b": 5, "c": 5}
    assert sum(plan._even_shares({"a": 3, "b": 1, "c": 4}, 8).values()) == 8


def test_made_up_sentences_are_disjoint_between_sets():
    sentences = texts.made_up_sentences(0)
    for language in ("en", "it"):
        parts = [set(sentences[set_name, language]) for set_name in human.SETS]
        assert sum(map(len, parts)) == len(set.union(*parts)) > 1000


def test_captions_come_out_speakable():
    assert texts.clean('A "Give Way" sign (in French); l’école_2!') == "A Give Way sign l'école 2"
    assert texts.ascii_only("città è qui") == "citta e qui"


def test_a_planted_cue_is_found_and_noise_is_not():
    rng = np.random.default_rng(0)
    is_bonafide = np.arange(400) % 2 == 0

    def rows() -> list[dict[str, float]]:
        return [{"planted": -3.0 * one + rng.standard_normal(), "noise": rng.standard_normal()} for one in is_bonafide]

    tiers = np.where(is_bonafide, "-", np.where(np.arange(400) % 4 == 1, "near", "far"))
    table = {row.cue: row for row in cues.cue_table(rows(), is_bonafide, rows(), tiers)}
    assert list(table["noise"].tier_eers) == ["near", "far"]
    assert max(table["planted"].tier_eers.values()) < 0.12
    assert table["planted"].eval_eer < 0.12
    assert 0.4 < table["noise"].eval_eer < 0.6
    assert table[cues.ALL_TOGETHER].eval_eer < 0.12


def test_cues_of_a_built_corpus_are_all_numbers(corpus):
    lines = [line.split("\t") for line in (corpus / "cues.tsv").read_text().splitlines()]
    assert lines[0] == ["cue", *(f"{part}_eer_percent" for part in ("train", "eval", "near", "far"))]
    table = {row[0]: float(row[2]) for row in lines[1:]}
    assert table["duration"] == pytest.approx(50, abs=5)
    assert cues.ALL_TOGETHER in table
    assert all(0 <= float(value) <= 100 for row in lines[1:] for value in row[1:])


@pytest.fixture
def filled_cache(tmp_path: Path) -> Path:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not on this machine")
    package = tmp_path / "package"
    (package / "DEBIAN").mkdir(parents=True)
    (package / "DEBIAN" / "control").write_text(
        "Package: voices\nVersion: 1\nArchitecture: all\nMaintainer: nobody <a@b.c>\nDescription: none\n"
    )
    (package / "usr").mkdir()
    (package / "usr" / "hello.txt").write_text("hello")
    (package / "usr" / "picture.png").write_text("not wanted")
    deb = tmp_path / "cache" / "debs" / "voices_1_all.deb"
    deb.parent.mkdir(parents=True)
    subprocess.run(["dpkg-deb", "--build", str(package), str(deb)], check=True, capture_output=True)
    record = {"wanted": ["voices"], "files": {deb.name: hashlib.sha256(deb.read_bytes()).hexdigest()}}
    (tmp_path / "cache" / "debs.json").write_text(json.dumps(record))
    return tmp_path / "cache"


def without_apt(monkeypatch, tmp_path) -> None:
    """Leave the tools that unpack on the path, but no apt."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("dpkg-deb", "tar", "xz", "gzip", "zstd"):
        if shutil.which(name):
            (tools / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(tools))


def test_a_filled_cache_needs_no_network(filled_cache, monkeypatch, tmp_path):
    without_apt(monkeypatch, tmp_path)
    root = fetch.fetch_packages(filled_cache, ["voices"])
    assert (root / "usr/hello.txt").read_text() == "hello"
    assert not (root / "usr/picture.png").exists()


def test_a_damaged_cache_is_noticed(filled_cache, monkeypatch, tmp_path):
    without_apt(monkeypatch, tmp_path)
    deb = filled_cache / "debs" / "voices_1_all.deb"
    deb.write_bytes(deb.read_bytes()[:-1] + b"?")
    with pytest.raises(SpoofkitError, match=r"apt-get: not found.*--speech"):
        fetch.fetch_packages(filled_cache, ["voices"])


def test_a_package_that_the_release_lacks_is_named():
    with pytest.raises(SpoofkitError, match=r"have no festvox-x .*--speech DIR"):
        fetch._check_all_known({"flite": {}}, ["flite", "festvox-x"], "")


def test_espeak_batches_do_not_depend_on_the_time_of_day():
    pytest.importorskip("espeakng_loader", reason="the extra `mini` is not installed")
    import synthesize

    option = {"voice": "en+f2", "rate": 160, "pitch": 50, "range": 50}  # f2 is breathy: made with random numbers
    first = synthesize.espeak(["seven yellow ducks"], [option], 7, None)[0]
    time.sleep(1.1)  # the library seeds itself with the second
    second = synthesize.espeak(["seven yellow ducks"], [option], 7, None)[0]
    assert len(first) > RATE // 2
    assert np.array_equal(first, second)
