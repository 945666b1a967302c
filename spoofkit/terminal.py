r"""Writing text out: on a terminal control characters are escaped, in files and pipes every name stays unchanged.

File names, ids and settings come from strangers. Written raw to a terminal, an escape sequence in one of them clears
the screen or overwrites another recording's decision. So all text leaves by `echo` (stdout) or `say` (stderr), tables
by `spoofkit.tables.show`, and what a progress bar, a picture or an HTML page is labelled with by `visible`.
"""

import json
import re
import sys
import traceback
from types import TracebackType
from typing import Any, TextIO

# C0, DEL and C1; what reorders text or ends a line, as Unicode has it; what os.fsdecode makes of other bytes than UTF-8
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# of these only surrogates that are no bytes
UNENCODABLE = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def visible(text: str) -> str:
    r"""Return `text` with control characters, bidirectional controls and undecodable bytes as escapes.

    >>> visible("a\x1b[2J\n\u202eb\udcff")
    'a\\x1b[2J\\n\\u202eb\\xff'
    """
    return CONTROL.sub(_escape, text)


def visible_lines(value: Any) -> Any:
    """Return a text with each of its lines made `visible`; anything else, such as markup, unchanged."""
    return "\n".join(map(visible, value.split("\n"))) if type(value) is str else value


def echo(*cells: str) -> None:
    """Write one line to stdout; several cells are separated by tabs."""
    sys.stdout.write(_line(cells, sys.stdout))
    sys.stdout.flush()


def echo_text(text: str) -> None:
    """Write a text to stdout whose line breaks and tabs are all intended, because no name in it can hold one."""
    for line in text.removesuffix("\n").split("\n") if text else ():
        echo(*line.split("\t"))


def echo_json(value: Any) -> None:
    """Write the output of `--json` to stdout: plain values, with all digits, on one line."""
    echo(json.dumps(value))


def json_line(value: Any) -> str:
    r"""Return JSON on one line, with non-ASCII letters unescaped and control characters as `\uXXXX`."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def say(message: str) -> None:
    """Write one line for the user to stderr, above any progress bar; stdout is for results."""
    from tqdm import tqdm

    tqdm.write(_line((message,), sys.stderr), file=sys.stderr, end="")
    sys.stderr.flush()


def prepare_streams() -> None:
    """Pass names that are not UTF-8 to files and pipes as their bytes, and show tracebacks escaped."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    sys.excepthook = _show_traceback


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    for line in "".join(traceback.format_exception(kind, error, trace)).removesuffix("\n").split("\n"):
        say(line)


def _line(cells: tuple[str, ...], stream: TextIO) -> str:
    escaped = CONTROL if stream.isatty() else UNENCODABLE
    return "\t".join(escaped.sub(_escape, cell) for cell in cells) + "\n"


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
