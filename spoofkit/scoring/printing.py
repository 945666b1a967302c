"""Scores of recordings on stdout: TSV or JSON line by line, or a table at the end for somebody who reads it."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from spoofkit.data.channels import AUTO, describe_separate_channels
from spoofkit.files import refuse_existing, write_text
from spoofkit.scoring import rows
from spoofkit.scoring.decisions import Decisions, meaning
from spoofkit.scoring.job import raise_failed
from spoofkit.scoring.loose_files import STDIN, find_files, in_chunks
from spoofkit.scoring.options import ScoreOptions
from spoofkit.scoring.recordings import Reading, Recording, Result
from spoofkit.scoring.scorer import Scorer
from spoofkit.scoring.stream import score_recordings
from spoofkit.scoring.windows import words
from spoofkit.terminal import say


def print_scores(
    scorer: Scorer,
    inputs: list[Path],
    reading: Reading,
    decisions: Decisions | None,
    options: ScoreOptions,
) -> Iterator[str]:
    """Score recordings, and yield the lines for stdout.

    Args:
        scorer: What scores.
        inputs: Files, folders, globs and `-`.
        reading: What of each is read.
        decisions: How scores are decided, if they are.
        options: The rest.

    Raises:
        SpoofkitError: after all others were scored, a recording could not be.
    """
    if options.windows_out is not None:
        refuse_existing(options.windows_out, options.overwrite)
    files = find_files(inputs)
    is_table = options.width is not None and not options.json_lines
    # A pipe wants an answer to every name before it gives the next one.
    n_together = 1 if STDIN in map(str, inputs) else scorer.n_together
    chunks = ([Recording(file, file) for file in chunk] for chunk in in_chunks(files, n_together))
    results = score_recordings(scorer, chunks, reading, n_threads=options.workers)
    seen, shown = _Seen(), list[dict[str, str]]()
    if not (is_table or options.json_lines):
        yield "\t".join(rows.columns(decisions, reading))
    with tqdm(desc="score", unit="file", disable=not is_table) as bar:
        for result in (result for chunk in results for result in chunk):
            bar.update()
            if options.windows_out is not None or not (is_table or options.json_lines):
                result = rows.for_tsv(result, options.windows_out is not None)
            seen.add(result)
            if options.json_lines:
                yield rows.as_json(result, decisions)
                continue
            row = rows.cells(result, decisions, reading)
            if is_table:
                shown.append(row)
            else:
                yield "\t".join(row.values())
    if options.width is not None and is_table:
        yield from rows.terminal_table(shown, options.width)
    _say(meaning(decisions, scorer.meaning), words(reading.windows if seen.cut else None, reading.voice))
    say_apart(seen.apart, reading)
    if options.windows_out is not None:
        write_text(options.windows_out, rows.windows_tsv(seen.cut, decisions, reading), options.overwrite)
    raise_failed(seen.errors, seen.n_results)


@dataclass
class _Seen:
    """What is said of all results at the end."""

    n_results: int = 0
    errors: list[str] = field(default_factory=list)
    cut: list[Result] = field(default_factory=list)
    """Of recordings that were scored in windows."""
    apart: set[str] = field(default_factory=set)
    """Names of recordings of which channels are scored by themselves."""

    def add(self, result: Result) -> None:
        """Note a result."""
        self.n_results += 1
        if result.error:
            self.errors.append(result.error)
        if result.windows:
            self.cut.append(result)
        if result.channel is not None:
            self.apart.add(result.name)


def _say(*lines: str) -> None:
    """Say on stderr what the numbers mean, and if a recording was cut or might be left out, the rule."""
    for line in filter(None, lines):
        say(line)


def say_apart(names: Collection[str], reading: Reading) -> None:
    """Say on stderr of which recordings channels are scored by themselves, unless that was asked for."""
    if names and reading.channels == AUTO:
        say(describe_separate_channels(sorted(names)))
