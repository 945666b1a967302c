"""The verb `score`: from a model and a manifest or loose recordings to scores on stdout, or to a score file.

What writes files is imported late: it needs tables, and whoever scores one recording does not wait for those.
"""

from collections.abc import Iterator
from pathlib import Path

from spoofkit.errors import SpoofkitError
from spoofkit.models.names import find_model
from spoofkit.processes import World, read_world
from spoofkit.scoring import parts as score_parts
from spoofkit.scoring.loaded import load_model
from spoofkit.scoring.loose_files import STDIN
from spoofkit.scoring.options import ScoreOptions, refuse_contradictions, refuse_misplaced
from spoofkit.scoring.parts import Part
from spoofkit.scoring.printing import print_scores


def score_inputs(model: Path, inputs: list[Path], out: Path | None, options: ScoreOptions) -> Iterator[str]:
    """Score what the command line names, and yield the lines for stdout.

    Args:
        model: Model folder, an exported model (`*.onnx`), or `hub:OWNER/MODEL`.
        inputs: A manifest; or files, folders, globs and `-`.
        out: Score file to write. Default, for recordings only: scores are printed.
        options: The other options.

    Raises:
        SpoofkitError: an input is missing or not what was expected, the output exists, or, at the end, a loose file
            could not be scored.
        Interrupted: a signal asked to stop; what was scored is kept.
    """
    refuse_misplaced(inputs, out)
    is_loose = inputs[0].suffix != ".tsv"
    world = read_world()
    part = _own_part(world, options, inputs, out)
    named = find_model(model)
    model = named.path
    refuse_contradictions(options, model, inputs, out)
    list_of = None if is_loose else inputs[0]
    loaded = load_model(model, options, manifest=list_of, world=world, is_identified=out is not None)
    if out is None:
        yield from print_scores(loaded, inputs, options)
        return
    from spoofkit.scoring.writing import write_score_file

    yield from write_score_file(out, inputs, loaded, part, world, options, model=named.name)


def _own_part(world: World, options: ScoreOptions, inputs: list[Path], out: Path | None) -> Part:
    """Return the part of the work that this process does."""
    if world.size == 1:
        return Part() if options.part is None else score_parts.parse_part(options.part)
    if options.merge or options.part is not None:
        raise SpoofkitError(
            f"torchrun and {'--merge' if options.merge else '--part'}: torchrun divides the work and merges the parts "
            "itself, expected one of them; remove one"
        )
    if out is None or STDIN in map(str, inputs):
        what = "no score file" if out is None else "names on stdin"
        raise SpoofkitError(
            f"torchrun: found {what}, expected named recordings and a score file, such as `-o scores/eval.tsv`; add "
            "them, or run without torchrun"
        )
    return Part(world.rank + 1, world.size)
