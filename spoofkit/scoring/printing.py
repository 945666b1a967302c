"""Print scores of recordings on stdout: TSV or JSON line by line, or a table at the end if stdout is a terminal."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from spoofkit.data.channels import AUTO, describe_separate_channels
from spoofkit.files import refuse_existing, write_text
from spoofkit.scoring import rows
from spoofkit.scoring.decisions import Decisions, meaning
from spoofkit.scoring.job import raise_failed
from spoofkit.scoring.loose_files import STDIN, find_files
from spoofkit.scoring.options import ScoreOptions
from spoofkit.scoring.recordings import Reading, Recording, Result
from spoofkit.scoring.scorer import Scorer
from spoofkit.scoring.stream import in_chunks, score_recordings
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
        scorer: The model.
        inputs: Files, folders, globs and `-`.
        reading: What is read of each recording.
        decisions: How scores are decided; None: they are not.
        options: The other options.

    Raises:
        SpoofkitError: at the end, if a recording could not be scored.
    """
    if options.windows_out is not None:
        refuse_existing(options.windows_out, options.overwrite)
    files = find_files(inputs)
    is_table = options.width is not None and not options.json_lines
    # A program at the other end of a pipe may wait for each result before it writes the next name.
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
    for line in (meaning(decisions, scorer.meaning), words(reading.windows if seen.cut else None, reading.voice)):
        if line:
            say(line)
    if seen.apart and reading.channels == AUTO:
        say(describe_separate_channels(sorted(seen.apart)))
    if options.windows_out is not None:
        write_text(options.windows_out, rows.windows_tsv(seen.cut, decisions, reading), options.overwrite)
    raise_failed(seen.errors, seen.n_results)


@dataclass
class _Seen:
    """What the lines at the end need to know of all results."""

    n_results: int = 0
    errors: list[str] = field(default_factory=list)
    cut: list[Result] = field(default_factory=list)
    """Results of recordings that were scored in windows."""
    apart: set[str] = field(default_factory=set)
    """Names of recordings whose channels are scored separately."""

    def add(self, result: Result) -> None:
        """Add a result."""
        self.n_results += 1
        if result.error:
            self.errors.append(result.error)
        if result.windows:
            self.cut.append(result)
        if result.channel is not None:
            self.apart.add(result.name)
