"""Verbs about data: prepare, validate, pack, kaldi, mixlist."""

import io
import json
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from spoofkit.cli import options
from spoofkit.corpora import CORPORA
from spoofkit.errors import SpoofkitError
from spoofkit.terminal import echo, echo_text, say

Corpus = Enum("Corpus", {name: name for name in CORPORA}, type=str)  # type: ignore[misc]


class OnError(str, Enum):
    """What a file that cannot be used means."""

    stop = "stop"
    skip = "skip"


class DrawByDefault(TyperGroup):
    """Makes `mixlist TRAIN.tsv OUT.tsv` mean `mixlist draw TRAIN.tsv OUT.tsv`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `draw` before arguments that name no sub-command."""
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["draw", *args]
        return super().parse_args(ctx, args)


mixlist = typer.Typer(
    cls=DrawByDefault,
    no_args_is_help=True,
    help=(
        "Draw a list of mix-frame utterances, or look at and listen to one.\n\n"
        "`spoofkit mixlist data/train.tsv exp/x/posttrain/mix.tsv -c conf/xlsr300m.yaml`\n\n"
        "`spoofkit mixlist show exp/x/posttrain/mix.tsv data/train.tsv mix.png --mix-id mix_0000003`\n\n"
        "What draws may be told (`--config`, `--set`, `--held-out` …): `spoofkit mixlist draw --help`"
    ),
)


def register(app: typer.Typer) -> None:
    """Add this module's verbs to the program."""
    app.command(rich_help_panel="Data")(prepare)
    app.command(rich_help_panel="Data")(validate)
    app.command(rich_help_panel="Data")(pack)
    app.command(rich_help_panel="Data")(kaldi)
    app.add_typer(mixlist, name="mixlist", rich_help_panel="Data")


def prepare(
    corpus: Annotated[Corpus, typer.Argument(help=f"Which corpus: {', '.join(CORPORA)}.", metavar="CORPUS")],
    folder: Annotated[Path, typer.Argument(help="Where it lies, laid out as released.", metavar="DIR")],
    out: Annotated[Path, typer.Argument(help="Folder for the manifests, one a set.", metavar="OUT")],
    sets: Annotated[str, typer.Option(help="Only these sets, such as train,dev; none: all.")] = "",
    subset: Annotated[str, typer.Option(help="ASVspoof 2021: eval, progress, hidden or all.")] = "eval",
    column: Annotated[
        list[str] | None, typer.Option(help="generic: a column's name in your table, such as path=file.")
    ] = None,
    key: Annotated[
        list[str] | None, typer.Option(help="generic, kaldi: what a key's value means, such as fake=spoof.")
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Accept a knowing subset; the manifests then say so.")
    ] = False,
    headers: Annotated[
        bool, typer.Option("--headers/--no-headers", help="Read every file's length from its header.")
    ] = True,
    on_error: Annotated[
        OnError, typer.Option(help="A file that cannot be read: stop, or skip it and list it in SET.rejected.tsv.")
    ] = OnError.stop,
    downmix: Annotated[
        str, typer.Option(help="How several channels become one: mean, first, second …; the manifests say so.")
    ] = "mean",
    workers: Annotated[int, typer.Option(min=1, help="Threads that read headers.")] = 16,
    overwrite: options.Overwrite = False,
    reuse: options.Reuse = False,
) -> None:
    """Turn a corpus' own protocols into manifests, and check its counts.

    Example: `spoofkit prepare asvspoof5 /data/asvspoof5 data`
    """
    from spoofkit.corpora.release import Wanted
    from spoofkit.corpora.release import prepare as prepare_corpus

    wanted = Wanted(
        tuple(name for name in sets.split(",") if name), subset, _pairs(column, "--column"), _pairs(key, "--key")
    )
    for found in prepare_corpus(
        corpus.value,
        folder,
        out,
        wanted=wanted,
        partial=partial,
        headers=headers,
        on_error=on_error.value,
        downmix=downmix,
        workers=workers,
        overwrite=overwrite,
        reuse=reuse,
    ):
        kept = ", kept as it was" if found.kept else ""
        without = f" + {found.n_without_key:,} without a key" if found.n_without_key else ""
        part = f" (partial: {found.partial})" if found.partial else ""
        left_out = f", {found.n_rejected:,} rejected: see {found.path.stem}.rejected.tsv" if found.n_rejected else ""
        keys = f"{found.n_bonafide:,} bona fide + {found.n_spoof:,} spoof{without}"
        echo(f"{found.path}: {keys}{part}{left_out}{kept}")


def _pairs(texts: list[str] | None, option: str) -> dict[str, str]:
    pairs = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not (name and equals and value) or name in pairs:
            raise SpoofkitError(f"{option} {text}: expected NAME=VALUE, each name once")
        pairs[name] = value
    return pairs


def validate(
    manifests: Annotated[list[Path], typer.Argument(help="Manifests to check.", metavar="MANIFEST")],
    read_audio: Annotated[bool, typer.Option("--read-audio", help="Decode every file, not only its header.")] = False,
    on_error: Annotated[
        OnError, typer.Option(help="Unusable files: stop, or skip: move them from the manifest to SET.rejected.tsv.")
    ] = OnError.stop,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write the findings there instead of stdout.", metavar="FINDINGS.tsv"),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Threads that read.")] = 16,
    overwrite: options.Overwrite = False,
) -> None:
    """Check manifests against the disk: every file there, readable, whole, of the length that is stated.

    Prints a line per finding (utterance, severity, problem, kind; tab-separated), a summary on stderr, and exits with 1
    if any is an error that was not skipped. What was read is kept beside the manifest, and not read again.

    Example: `spoofkit validate data/train.tsv data/dev.tsv --read-audio`
    """
    from spoofkit.checks.validate import findings_text, reject, summary
    from spoofkit.checks.validate import validate as check
    from spoofkit.files import refuse_existing, tsv_fault, write_text

    if out is not None:
        if faults := list(filter(None, (tsv_fault(str(path), to_file=True) for path in manifests))):
            raise SpoofkitError(faults[0])
        if out.resolve() in [path.resolve() for path in manifests]:
            raise SpoofkitError(f"--out {out}: is one of the manifests, expected another file; name one")
        refuse_existing(out, overwrite)
    results = []
    for path in manifests:
        results.append(check(path, read_audio, workers))
        if out is None:
            echo_text(findings_text(results[-1]))
        for line in summary(results[-1]):
            say(line)
    if out is not None:
        lines = ["utt_id\tseverity\tproblem\tkind\tmanifest\n"]
        for result in results:
            lines += [f"{line}\t{result.manifest.path}\n" for line in findings_text(result).split("\n")[:-1]]
        write_text(out, "".join(lines), overwrite)
    if on_error.value == "skip":
        for result in results:
            if n_rejected := reject(result):
                path = result.manifest.path
                say(f"{path}: {n_rejected:,} utterances moved to {path.stem}.rejected.tsv")
    elif any(result.n_errors for result in results):
        raise typer.Exit(1)


def pack(
    manifest: Annotated[Path, typer.Argument(help="Manifest to pack.", metavar="MANIFEST")],
    out: Annotated[Path, typer.Argument(help="Folder for the shards and their manifest.", metavar="OUT")],
    shard_mb: Annotated[int, typer.Option(min=1, help="Size of a shard, in MB.")] = 1000,
    workers: Annotated[int, typer.Option(min=1, help="Threads that decode.")] = 8,
    overwrite: options.Overwrite = False,
    reuse: options.Reuse = False,
) -> None:
    """Decode a set once into large files that are read without decoding, for storage that is slow with small ones.

    OUT gets a manifest of the same name, which can be used wherever the original can, with the same results.
    Interrupted, the same command resumes after the last complete shard.

    Example: `spoofkit pack data/train.tsv /local/packed`
    """
    from spoofkit.data.pack import pack as pack_manifest

    found = pack_manifest(
        manifest, out, shard_bytes=shard_mb * 1_000_000, workers=workers, overwrite=overwrite, reuse=reuse
    )
    if found.n_rounded:
        say(
            f"{found.n_rounded:,} utterances are not 16-bit, 16 kHz and mono: rounded to 16 bits, "
            f"{found.n_clipped:,} samples beyond full scale clipped"
        )
    kept = ", kept as it was" if found.kept else ""
    echo(f"{found.manifest}: {found.n_utterances:,} utterances in {found.n_shards:,} shards{kept}")


def kaldi(
    manifest: Annotated[Path, typer.Argument(help="Manifest to write out.", metavar="MANIFEST")],
    out: Annotated[Path, typer.Argument(help="Kaldi data directory, new or empty.", metavar="OUT")],
    speaker_prefix: Annotated[
        bool, typer.Option("--speaker-prefix", help="Call utterances SPEAKER-UTT_ID, as Kaldi's own check wants.")
    ] = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Write a manifest as a Kaldi data directory: wav.scp, utt2spk, spk2utt, utt2key, utt2attack and further columns.

    Example: `spoofkit kaldi data/train.tsv kaldi/train`
    """
    from spoofkit.corpora.kaldi import write_kaldi

    found = write_kaldi(manifest, out, speaker_prefix=speaker_prefix, overwrite=overwrite)
    if not found.sorted_by_speaker:
        hint = "" if speaker_prefix else "; --speaker-prefix fixes that and changes the names"
        say(f"{out}: utterances are not sorted by speaker, which utils/validate_data_dir.sh refuses{hint}")
    echo(f"{found.path}: {found.n_utterances:,} utterances")


@mixlist.command()
def draw(
    manifest: Annotated[Path, typer.Argument(help="Manifest to draw from.", metavar="TRAIN.tsv")],
    out: Annotated[Path, typer.Argument(help="Mix list to write.", metavar="OUT.tsv")],
    config: options.Config = None,
    set_: options.Set = None,
    held_out: Annotated[bool, typer.Option("--held-out", help="Draw mix.n_dev mixes, for validation.")] = False,
    overwrite: options.Overwrite = False,
    reuse: options.Reuse = False,
    as_json: options.Json = False,
) -> None:
    """Draw a mix list (`draw` itself may be left out) and print statistics of what was drawn."""
    from spoofkit.config import load_config
    from spoofkit.data.manifest import read_keyed_manifest
    from spoofkit.data.mixdraw import draw_mixes, made_from
    from spoofkit.data.mixlist import read_made_from, write_mix_list
    from spoofkit.data.mixstats import mix_statistics
    from spoofkit.files import is_up_to_date, refuse_existing

    settings, utterances = load_config(config, set_), read_keyed_manifest(manifest)
    record = made_from(settings, utterances, held_out)
    if is_up_to_date(out, record, read_made_from, reuse):
        say(f"{out}: kept as it was")
        return
    refuse_existing(out, overwrite)
    mix_list = draw_mixes(settings, utterances, held_out)
    write_mix_list(out, mix_list, overwrite)
    statistics = mix_statistics(mix_list, utterances)
    echo_text(json.dumps(statistics) if as_json else _statistics_text(out, statistics))


@mixlist.command()
def show(
    mix_list: Annotated[Path, typer.Argument(help="The mix list.", metavar="MIX.tsv")],
    manifest: Annotated[Path, typer.Argument(help="The manifest it was drawn from.", metavar="MANIFEST")],
    out: Annotated[Path, typer.Argument(help="Picture to write: .png, .pdf or .svg.", metavar="OUT")],
    mix_id: Annotated[str, typer.Option(help="Which mix; none: the first.")] = "",
    config: options.Config = None,
    set_: options.Set = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Draw a mixed utterance: waveform, spectrogram, injected regions, frame targets.

    Frames are those of the settings' encoder; without settings, the 20 ms frames of wav2vec 2.0.
    """
    from spoofkit.config import load_config
    from spoofkit.data.audio import SAMPLE_RATE
    from spoofkit.data.frames import WAV2VEC2_GEOMETRY
    from spoofkit.data.mixstats import draw_mix
    from spoofkit.files import refuse_existing
    from spoofkit.models.pretrained import load_encoder

    _require_suffix(out, ".png", ".pdf", ".svg")
    refuse_existing(out, overwrite)
    settings = load_config(config, set_)
    # Without settings nothing is loaded, least of all from a network.
    geometry = load_encoder(settings.encoder).geometry if config else WAV2VEC2_GEOMETRY
    dataset, index = _mix_dataset(mix_list, manifest, mix_id, geometry, settings.mix.frame_target)
    mix, item = dataset.mixes[index], dataset[0, index]
    keys = {utt_id: "spoof" if utt_id in dataset.spoofed else "bona fide" for utt_id in (mix.base_id, mix.injector_id)}
    title = (
        f"{mix.mix_id}: {mix.base_id} ({keys[mix.base_id]}) with {len(mix.regions)} region(s) of {mix.injector_id} "
        f"({keys[mix.injector_id]}); frame target: {settings.mix.frame_target}"
    )
    draw_mix(out, mix, item.wave_S, dataset.targets(index), dataset.geometry, title, overwrite)
    places = ", ".join(f"{start / SAMPLE_RATE:.2f}-{end / SAMPLE_RATE:.2f} s" for start, end in mix.injected())
    echo(f"{out}: {title}; injected at {places}")


@mixlist.command()
def render(
    mix_list: Annotated[Path, typer.Argument(help="The mix list.", metavar="MIX.tsv")],
    manifest: Annotated[Path, typer.Argument(help="The manifest it was drawn from.", metavar="MANIFEST")],
    out: Annotated[Path, typer.Argument(help="Audio to write: .wav or .flac, 16 kHz.", metavar="OUT")],
    mix_id: Annotated[str, typer.Option(help="Which mix; none: the first.")] = "",
    overwrite: options.Overwrite = False,
) -> None:
    """Write a mixed utterance as audio, to listen to."""
    import soundfile

    from spoofkit.data.audio import SAMPLE_RATE
    from spoofkit.data.frames import WAV2VEC2_GEOMETRY
    from spoofkit.files import atomic_path

    _require_suffix(out, ".wav", ".flac")
    dataset, index = _mix_dataset(mix_list, manifest, mix_id, WAV2VEC2_GEOMETRY, "region")
    wave_S = dataset[0, index].wave_S
    peak = float(abs(wave_S).max())
    encoded = io.BytesIO()  # written by Python: a full disk is then an OSError like every other
    soundfile.write(encoded, wave_S / max(1.0, peak), SAMPLE_RATE, format=out.suffix[1:])
    with atomic_path(out, overwrite) as temporary:
        temporary.write_bytes(encoded.getbuffer())
    echo(f"{out}: {dataset.mixes[index].mix_id}, {wave_S.size / SAMPLE_RATE:.2f} s")


def _require_suffix(out: Path, *suffixes: str) -> None:
    if out.suffix not in suffixes:
        raise SpoofkitError(f"{out}: its name ends in {out.suffix!r}, expected {' or '.join(suffixes)}")


def _mix_dataset(mix_list: Path, manifest: Path, mix_id: str, geometry: Any, frame_target: str) -> tuple[Any, int]:
    from spoofkit.data.dataset import MixDataset
    from spoofkit.data.manifest import read_keyed_manifest
    from spoofkit.data.mixlist import read_mix_list

    utterances = read_keyed_manifest(manifest)
    mixes = read_mix_list(mix_list, utterances)
    index = mixes.mixes.index(mixes.by_id(mix_id)) if mix_id else 0
    return MixDataset(mixes, utterances, geometry, frame_target), index


def _statistics_text(out: Path, statistics: dict[str, Any]) -> str:
    def spread(name: str, scale: float, unit: str) -> str:
        low, middle, high = (scale * value for value in statistics[name])
        return f"{middle:.3g} {unit} (5-95 %: {low:.3g}-{high:.3g})"

    pairs = ", ".join(f"{count:,} {pair}" for pair, count in statistics["base_from_injector"].items())
    regions = ", ".join(f"{count:,} with {number}" for number, count in statistics["regions_per_mix"].items())
    return "\n".join(
        [
            f"{out}: {statistics['n_mixes']:,} mixes "
            f"({statistics['n_redrawn']:,} draws were too short and drawn again)",
            f"  pairs    {pairs}",
            f"  regions  {regions}; each {spread('region_seconds', 1, 's')}",
            f"  share    {spread('injected_share', 100, '%')} of crops of {spread('crop_seconds', 1, 's')}",
        ]
    )
