"""The verb `mixlist`: draw, show, render."""

import io
from pathlib import Path
from typing import Annotated, Any

import typer

from spoofkit.cli import options
from spoofkit.cli.verb import Group, Verbs
from spoofkit.errors import SpoofkitError
from spoofkit.terminal import echo, echo_json, echo_text, say


class MixList(Group):
    """The verbs about mix lists."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb; an argument that is none was meant for `draw`, which earlier versions let one leave out.

        Raises:
            SpoofkitError: it is no verb.
        """
        if args[0] not in self.commands:
            raise SpoofkitError(
                f"mixlist: found {args[0]}, expected {', '.join(self.commands)}; to draw a list, write "
                "`spoofkit mixlist draw …`"
            )
        return super().resolve_command(ctx, args)


mixlist = Verbs(
    cls=MixList,
    no_args_is_help=True,
    help=(
        "Draw a list of mix-frame utterances, or look at and listen to one.\n\n"
        "`spoofkit mixlist draw data/train.tsv -o exp/x/posttrain/mix.tsv -c conf/xlsr300m.yaml`\n\n"
        "`spoofkit mixlist show exp/x/posttrain/mix.tsv data/train.tsv -o mix.png --mix-id mix_0000003`"
    ),
)


@mixlist.command()
def draw(
    manifest: Annotated[Path, typer.Argument(help="Manifest to draw from.", metavar="TRAIN.tsv")],
    out: Annotated[Path, options.out(help="Mix list to write.", metavar="MIX.tsv")],
    config: options.Config = None,
    set_: options.Set = None,
    held_out: Annotated[bool, typer.Option("--held-out", help="Draw mix.n_dev mixes, from the dev manifest.")] = False,
    overwrite: options.Overwrite = False,
    reuse: options.Reuse = False,
    as_json: options.Json = False,
) -> None:
    """Draw a mix list and print statistics of what was drawn."""
    from spoofkit.config import load_config
    from spoofkit.data.manifest import read_keyed_manifest
    from spoofkit.data.mixdraw import draw_mixes, made_from
    from spoofkit.data.mixlist import find_record, write_mix_list
    from spoofkit.data.mixstats import mix_statistics
    from spoofkit.outputs import Output, is_up_to_date, skipped

    settings, utterances = load_config(config, set_), read_keyed_manifest(manifest)
    output = Output("mixlist draw", (out,), out, made_from(settings, utterances, held_out), find_record)
    if is_up_to_date(output, overwrite=overwrite, reuse=reuse):
        say(skipped(out))
        return
    mix_list = draw_mixes(settings, utterances, held_out)
    write_mix_list(out, mix_list, overwrite=True)
    statistics = mix_statistics(mix_list, utterances)
    if as_json:
        echo_json(statistics)
    else:
        echo_text(_statistics_text(out, statistics))


@mixlist.command()
def show(
    mix_list: Annotated[Path, typer.Argument(help="The mix list.", metavar="MIX.tsv")],
    manifest: Annotated[Path, typer.Argument(help="The manifest it was drawn from.", metavar="MANIFEST")],
    out: Annotated[Path, options.out(help="Picture to write: .png, .pdf or .svg.")],
    mix_id: Annotated[str, typer.Option(help="Which mix. Default: the first.")] = "",
    config: options.Config = None,
    set_: options.Set = None,
    overwrite: options.Overwrite = False,
    reuse: options.Reuse = False,
) -> None:
    """Draw a mixed utterance: waveform, spectrogram, injected regions, frame targets.

    Frames are those of the settings' encoder; without settings, the 20 ms frames of wav2vec 2.0.
    """
    from spoofkit.config import load_config
    from spoofkit.data.audio import SAMPLE_RATE
    from spoofkit.data.frames import WAV2VEC2_GEOMETRY
    from spoofkit.data.mixstats import draw_mix
    from spoofkit.files import atomic_path, file_sha256
    from spoofkit.models.pretrained import load_encoder
    from spoofkit.outputs import is_up_to_date, output_with_own_record, skipped, write_own_record

    _require_suffix(out, ".png", ".pdf", ".svg")
    settings = load_config(config, set_)
    hashes = {"mix_sha256": file_sha256(mix_list), "manifest_sha256": file_sha256(manifest)}
    seen = {"encoder": settings.encoder.model_dump(mode="json") if config else None, "mix_id": mix_id}
    output = output_with_own_record("mixlist show", out, hashes | seen | {"frame_target": settings.mix.frame_target})
    if is_up_to_date(output, overwrite=overwrite, reuse=reuse):
        echo(skipped(out))
        return
    # Without settings nothing is loaded, least of all from a network.
    geometry = load_encoder(settings.encoder).geometry if config else WAV2VEC2_GEOMETRY
    dataset, index = _mix_dataset(mix_list, manifest, mix_id, geometry, settings.mix.frame_target)
    mix, item = dataset.mixes[index], dataset[0, index]
    keys = {utt_id: "spoof" if utt_id in dataset.spoofed else "bona fide" for utt_id in (mix.base_id, mix.injector_id)}
    title = (
        f"{mix.mix_id}: {mix.base_id} ({keys[mix.base_id]}) with {len(mix.regions)} region(s) of {mix.injector_id} "
        f"({keys[mix.injector_id]}); frame target: {settings.mix.frame_target}"
    )
    with atomic_path(out, overwrite=True) as temporary:
        draw_mix(temporary, mix, item.wave_S, dataset.targets(index), dataset.geometry, title)
        write_own_record(output, temporary)
    places = ", ".join(f"{start / SAMPLE_RATE:.2f}-{end / SAMPLE_RATE:.2f} s" for start, end in mix.injected())
    echo(f"{out}: {title}; injected at {places}")


@mixlist.command()
def render(
    mix_list: Annotated[Path, typer.Argument(help="The mix list.", metavar="MIX.tsv")],
    manifest: Annotated[Path, typer.Argument(help="The manifest it was drawn from.", metavar="MANIFEST")],
    out: Annotated[Path, options.out(help="Audio to write: .wav or .flac, 16 kHz.")],
    mix_id: Annotated[str, typer.Option(help="Which mix. Default: the first.")] = "",
    overwrite: options.Overwrite = False,
    reuse: options.Reuse = False,
) -> None:
    """Write a mixed utterance as audio, to listen to."""
    import soundfile

    from spoofkit.data.audio import SAMPLE_RATE
    from spoofkit.data.frames import WAV2VEC2_GEOMETRY
    from spoofkit.files import atomic_path, file_sha256
    from spoofkit.outputs import is_up_to_date, output_with_own_record, skipped, write_own_record

    _require_suffix(out, ".wav", ".flac")
    hashes = {"mix_sha256": file_sha256(mix_list), "manifest_sha256": file_sha256(manifest)}
    output = output_with_own_record("mixlist render", out, hashes | {"mix_id": mix_id})
    if is_up_to_date(output, overwrite=overwrite, reuse=reuse):
        echo(skipped(out))
        return
    dataset, index = _mix_dataset(mix_list, manifest, mix_id, WAV2VEC2_GEOMETRY, "region")
    wave_S = dataset[0, index].wave_S
    peak = float(abs(wave_S).max())
    encoded = io.BytesIO()  # written by Python: a full disk is then an OSError like every other
    soundfile.write(encoded, wave_S / max(1.0, peak), SAMPLE_RATE, format=out.suffix[1:])
    with atomic_path(out, overwrite=True) as temporary:
        temporary.write_bytes(encoded.getbuffer())
        write_own_record(output, temporary)
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
