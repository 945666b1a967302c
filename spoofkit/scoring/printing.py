"""Print scores of recordings on stdout: TSV or JSON line by line, or a table at the end if stdout is a terminal."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from spoofkit.data.channels import AUTO, describe_separate_channels
from spoofkit.files import refuse_existing, write_text
from spoofkit.scoring import rows
from spoofkit.scoring.decisions import meaning
from spoofkit.scoring.job import raise_failed
from spoofkit.scoring.loaded import Loaded, in_named_precision
from spoofkit.scoring.loose_files import STDIN, find_files
from spoofkit.scoring.options import ScoreOptions
from spoofkit.scoring.recordings import Recording
from spoofkit.scoring.scored import ScoredRecording, score_loose
from spoofkit.scoring.windows import words
from spoofkit.terminal import say


def print_scores(loaded: Loaded, inputs: list[Path], options: ScoreOptions) -> Iterator[str]:
    """Score recordings, and yield the lines for stdout.

    Args:
        loaded: The model.
        inputs: Files, folders, globs and `-`.
        options: The other options.

    Raises:
        SpoofkitError: at the end, if a recording could not be scored.
    """
    assert loaded.scorer is not None
    reading, decisions = loaded.reading, loaded.decisions
    scorer = in_named_precision(options.precision, loaded.scorer, decisions)
    if options.windows_out is not None:
        refuse_existing(options.windows_out, options.overwrite)
    is_table = options.width is not None and not options.json_lines
    # A program at the other end of a pipe may wait for each result before it writes the next name.
    n_together = 1 if STDIN in map(str, inputs) else None
    recordings = (Recording(file, file) for file in find_files(inputs))
    scored = score_loose(scorer, recordings, reading, decisions, n_together=n_together, workers=options.workers)
    seen, shown = _Seen(keeps_cut=options.windows_out is not None), list[dict[str, str]]()
    names = rows.columns(decisions, reading)
    if not (is_table or options.json_lines):
        yield "\t".join(names)
    with tqdm(desc="score", unit="file", disable=not is_table) as bar:
        for one in scored:
            bar.update()
            if options.windows_out is not None or not (is_table or options.json_lines):
                one = rows.for_tsv(one, options.windows_out is not None)
            seen.add(one)
            if options.json_lines:
                yield rows.as_json(one)
                continue
            row = rows.cells(one, names)
            if is_table:
                shown.append(row)
            else:
                yield "\t".join(row.values())
    if options.width is not None and is_table:
        yield from rows.terminal_table(shown, options.width)
    for line in (meaning(decisions, scorer.meaning), words(reading.windows if seen.has_cut else None, reading.voice)):
        if line:
            say(line)
    if seen.apart and reading.channels == AUTO:
        say(describe_separate_channels(sorted(seen.apart)))
    if options.windows_out is not None:
        write_text(options.windows_out, rows.windows_tsv(seen.cut, decisions, reading), options.overwrite)
    raise_failed(seen.errors, seen.n_results)


@dataclass
class _Seen:
    """What the lines at the end need to know of all recordings."""

    keeps_cut: bool
    n_results: int = 0
    has_cut: bool = False
    """Whether a recording was scored in windows."""
    errors: list[str] = field(default_factory=list)
    cut: list[ScoredRecording] = field(default_factory=list)
    """Those recordings, if they are kept: a pipe may never end."""
    apart: set[str] = field(default_factory=set)
    """Names of recordings whose channels are scored separately."""

    def add(self, one: ScoredRecording) -> None:
        """Add a recording, or a channel of it."""
        self.n_results += 1
        if one.error:
            self.errors.append(one.error)
        if one.windows:
            self.has_cut = True
            if self.keeps_cut:
                self.cut.append(one)
        if one.channel is not None:
            self.apart.add(one.file)
