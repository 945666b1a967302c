"""The program `spoofkit`: its verbs, and the one place where errors become messages.

A command imports its work inside its function, so that `spoofkit --help` answers at once.
"""

import logging
import os
import resource
import signal
import sys
from contextlib import nullcontext
from typing import Annotated, Any

import typer

from spoofkit import addons
from spoofkit.cli import compare, corpora, data, evaluate, localize, models, score, train
from spoofkit.cli.verb import Program, Verbs
from spoofkit.errors import Interrupted, SpoofkitError
from spoofkit.interrupts import Stopped, stopped_by_signals
from spoofkit.terminal import echo, prepare_streams, say, visible

LEAST_ADDRESS_SPACE = 2_000_000_000  # bytes; torch, transformers and scipy take 1.3 GB of it for their code
# click's, which older versions of typer import and newer ones contain
_CLICK_EXCEPTION: Any = typer.BadParameter.__mro__[2]

app = Verbs(
    name="spoofkit",
    cls=Program,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Speech deepfake detection with mix-frame post-training (arXiv:2606.25328).\n\n"
        "Is this recording genuine? `spoofkit score egs/mini/exp/mixframe_seed0/finetune/model call.wav`\n\n"
        "From corpus to EER, step by step: `egs/asvspoof5/run.sh --corpus DIR`; on a laptop: `egs/mini/run.sh`"
    ),
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from spoofkit.machine import version

        echo(f"spoofkit {version()}")
        raise typer.Exit


def _add_verb(verb: str, addon: str) -> None:
    """Add the verb of an addon; where there is no such addon, the verb says so and the help leaves it out."""
    try:
        addons.find(f"{addon}.cli").register(app)
    except SpoofkitError as error:
        missing = error

        def refuse() -> None:
            raise missing

        settings = {"allow_extra_args": True, "ignore_unknown_options": True}
        app.command(verb, hidden=True, add_help_option=False, context_settings=settings)(refuse)


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print version and commit."),
    ] = False,
) -> None:
    """Options of the program itself."""


data.register(app)
corpora.register(app)
train.register(app)
score.register(app)
evaluate.register(app)
localize.register(app)
compare.register(app)
models.register(app)
for verb, addon in addons.VERBS.items():
    _add_verb(verb, addon)
app.command()(evaluate.doctor)


def main() -> None:
    """Run the program; a user's mistake is one sentence on stderr and exit code 1."""
    # A stream that the caller has closed (`2>&-`) is None, and whoever writes to it would fail without a word.
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:
            setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115 - for as long as the program runs
    _require_utf8()
    prepare_streams()
    # transformers' own bars and advice would stand between ours.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", "30")  # a log file wants a line now and then, not ten a second
    _require_memory()
    try:
        # torchrun ends its processes by a signal; one that waits for another in C would not hear of an exception.
        with nullcontext() if "WORLD_SIZE" in os.environ else stopped_by_signals():
            sys.exit(_run())
    except SpoofkitError as error:
        _fail(str(error))
    except Interrupted as stop:
        say(f"spoofkit: {stop}")
        sys.exit(stop.exit_code)
    except (Stopped, KeyboardInterrupt) as error:  # the latter in torchrun's processes
        stopped = error if isinstance(error, Stopped) else Stopped(signal.SIGINT)
        say(f"spoofkit: {stopped}")
        sys.exit(stopped.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except RuntimeError as error:
        # Python before 3.13 says so of a link that leads to itself; any other is a defect of ours.
        if not str(error).startswith("Symlink loop from "):
            raise
        _fail(f"{str(error).removeprefix('Symlink loop from ')}: is a link that leads to itself; remove it")
    except OSError as error:
        # A full disk or a missing permission is the user's to fix; a defect of ours is not an OSError with a file.
        _fail(f"{error.filename or 'output'}: {error.strerror or error}")


def _run() -> int:
    """Run a verb and return its exit code; what typer says of wrong arguments names them with `visible` characters."""
    try:
        return int(app(prog_name="spoofkit", standalone_mode=False) or 0)  # what `typer.Exit` says, else nothing
    except _CLICK_EXCEPTION as error:
        from typer.rich_utils import rich_format_error

        error.message = visible(error.message)
        rich_format_error(error)
        return int(error.exit_code)


def _require_utf8() -> None:
    """Start again in Python's UTF-8 mode where the locale has names of files in another encoding.

    Our files are UTF-8, and names in them must be those on the disk, whatever LC_ALL says (PEP 540).
    """
    if sys.getfilesystemencoding() != "utf-8":
        os.execv(sys.executable, [sys.orig_argv[0], "-X", "utf8", *sys.orig_argv[1:]])


def _require_memory() -> None:
    """Refuse an address space (`ulimit -v`) in which libraries hang or abort while they are loaded."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return
    if limit < LEAST_ADDRESS_SPACE and not {"-h", "--help", "--version"} & set(sys.argv):
        _fail(
            f"ulimit -v: the address space is limited to {limit / 1e9:.2f} GB, expected at least "
            f"{LEAST_ADDRESS_SPACE / 1e9:g} GB and what the model takes; raise the limit"
        )
    # OpenBLAS wants 32 MB for each of its threads at once, and asks for ever where it gets none.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _fail(sentence: str) -> None:
    say(f"spoofkit: error: {sentence}")
    sys.exit(1)
