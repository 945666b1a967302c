"""A verb of the program: its group on the help page, the panels of its options, and how wrong calls are refused.

Positional arguments are inputs, and what is written is named by `-o`.
"""

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from spoofkit.errors import Interrupted, SpoofkitError
from spoofkit.interrupts import EXIT_CODES, Stopped

# click's, which older versions of typer import and newer ones contain
_WRONG_USAGE: Any = typer.BadParameter.__mro__[1]

GROUPS = {
    "From corpus to EER": ("prepare", "mixlist", "posttrain", "finetune", "score", "evaluate"),
    "Where is it spoofed?": ("localize", "evaluate-segments"),
    "Compare and decide": (
        "report",
        "compare",
        "stress",
        "calibrate",
        "fuse",
        "apply",
        "threshold",
        "evaluate-sasv",
        "reformat",
    ),
    "Check and store data": ("subset", "validate", "audit", "overlap", "pack", "kaldi"),
    "Models and installation": ("info", "convert", "merge", "average", "export", "pull", "push", "serve", "doctor"),
}
"""The verbs on the help page, in order."""
PANELS = {
    "Corpora and challenges": ("subset", "column", "key", "asv", "asv_keys", "layout"),
    "What happens to the audio": ("conditions", "noise_folder", "reverb_folder"),
    "Long recordings and speech": ("window", "hop", "over_windows", "min_speech", "windows"),
    "Page and picture": ("known", "note"),
    "Who may ask, and for how much": (
        *("host", "port", "keys", "most_megabytes", "most_seconds", "upload_seconds", "most_wait", "log_names"),
    ),
    "Costs and decisions": ("spoof_prior", "miss_cost", "fa_cost", "abstain_cost", "accept_from", "reject_below"),
    "Where and how it runs": ("device", "workers", "part", "merge", "compile_", "shard_layers", "tensorboard"),
    "Format of what is printed": ("as_tsv", "as_latex", "as_json", "json_lines"),
    "Existing output": ("overwrite", "reuse"),
}
"""Options that are shown below the panel of a verb's main options; the same in every verb."""

RESUMED = {"posttrain": "exp", "finetune": "exp"}
RESUMED |= dict.fromkeys(("score", "localize", "stress", "audit", "pack"), "out")
"""Verbs that save their work as they go, and the parameter that names where: after a stop the same command resumes."""


def group_of(verb: str) -> str | None:
    """Return the group of a verb on the help page; None of a verb below another."""
    return next((group for group, verbs in GROUPS.items() if verb in verbs), None)


def _without_types_of_flags(params: list[Any]) -> list[Any]:
    """Leave `<bool>` out of the help of options that take no value."""
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
    return params


class Verb(TyperCommand):
    """A verb that sorts its options into panels, and refuses an output that is among the inputs, or missing."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        for panel, names in PANELS.items():
            for param in self.params:
                if param.name in names and param.param_type_name == "option":
                    param.rich_help_panel = panel  # type: ignore[attr-defined]

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options and arguments of the verb, with `--help`."""
        return _without_types_of_flags(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments of the verb.

        Raises:
            SpoofkitError: an argument is left over, or the output is missing.
        """
        try:
            return super().parse_args(ctx, [*args])
        except _WRONG_USAGE as error:
            out = next((param for param in self.params if param.name == "out"), None)
            # An error about another parameter, or about an option that does not exist, says enough.
            if out is None or getattr(error, "param", None) not in (None, out):
                raise
            given, extra, _ = self.make_parser(ctx).parse_args(args=[*args])
            if given.get("out") is not None:
                raise
            refusal = self._refusal(given, [str(argument) for argument in extra], str(out.metavar))
            # Without the program's name: `mixlist draw`, not `draw`.
            raise SpoofkitError(f"{ctx.command_path.partition(' ')[2]}: {refusal}") from None

    def invoke(self, ctx: Any) -> Any:
        """Run the verb.

        Raises:
            Interrupted: a signal stopped it where it has nothing to finish first.
        """
        try:
            return super().invoke(ctx)
        except Stopped as stop:
            name, given = ctx.command_path.partition(" ")[2], ctx.params
            saved = given.get(RESUMED.get(name, ""))
            if saved is not None:
                how, code = " without --overwrite" if given["overwrite"] else "", EXIT_CODES[stop.number]
                raise Interrupted(f"{saved}: {stop}; run the same command{how} to resume", code) from None
            how = ", with --reuse" if given.get("reuse") is False and given.get("out") is not None else ""
            sentence = f"{name}: {stop}, and no file is half-written; run the same command again{how}"
            raise Interrupted(sentence, stop.exit_code) from None

    def _refusal(self, given: dict[str, Any], extra: list[str], metavar: str) -> str:
        if extra:
            return f"found an extra argument {extra[-1]}; outputs are named with -o: write `-o {extra[-1]}`"
        # Of inputs that may be many, the last one may be meant: outputs of other programs stand there.
        declared = [param for param in self.params if param.param_type_name == "argument"]
        values = [given[str(param.name)] for param in declared]
        inputs = [name for value in values for name in (value if isinstance(value, (list, tuple)) else [value])]
        if len(inputs) > len(declared):
            return f"found no output; outputs are named with -o: if {inputs[-1]} is one, write `-o {inputs[-1]}`"
        return f"found no output; outputs are named with -o: write `-o {metavar}`"


class Group(TyperGroup):
    """Verbs below another."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options of the group, with `--help`."""
        return _without_types_of_flags(super().get_params(ctx))


class Program(Group):
    """The verbs in the order of the help page."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the verbs that this installation has."""
        order = [verb for verbs in GROUPS.values() for verb in verbs]
        return sorted(super().list_commands(ctx), key=order.index)


class Verbs(typer.Typer):
    """A set of verbs."""

    def command(self, name: str | None = None, **settings: Any) -> Any:
        """Register a function as a verb, in its group."""

        def register(function: Any) -> Any:
            verb = name or function.__name__.replace("_", "-")
            settings.setdefault("rich_help_panel", group_of(verb))
            return super(Verbs, self).command(verb, cls=Verb, **settings)(function)

        return register
