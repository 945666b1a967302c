"""The documentation names what exists: links, files, verbs and options."""

import ast
import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from spoofkit.cli.main import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("egs/**/*.md"), ROOT / "benchmarks/RESULTS.md"])
PAGES = [page for page in PAGES if not {"exp", "corpus", "downloads"} & set(page.parts)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_files_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, anchor = target.partition("#")
        if "://" in target:
            continue
        assert (page.parent / name).exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", (page.parent / name if name else page).read_text(), re.M)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}, (
                target
            )
    for name in re.findall(r"`((?:spoofkit|docs|tools|tests|egs|benchmarks)/[\w./-]+\.(?:py|md|sh|yaml))`", text):
        assert (ROOT / name).exists(), name


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the arguments of each `spoofkit VERB …` that a page shows on a line of its own, or between backquotes."""
    text = page.read_text().replace("\\\n", " ")
    shown = re.findall(r"^(?: {4}|\$ | {4}\$ )(?:.*\| )?spoofkit ([a-z].*)$", text, re.M)
    for command in [*shown, *re.findall(r"`spoofkit ([a-z][^`]*)`", text)]:
        yield shlex.split(re.split(r"\s[|&>]|  +#", command)[0], comments=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_verbs_and_options_that_a_page_shows_exist(page: Path) -> None:
    program = typer.main.get_command(app)
    for verb, *rest in commands(page):
        assert verb in program.commands, verb
        command = program.commands[verb]
        if hasattr(command, "commands"):
            command = command.commands[rest[0]]
        options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        options |= {"--help", "-h"}
        for argument in rest:
            if argument.startswith("-") and argument != "-" and not re.match(r"-\d", argument):
                assert argument.partition("=")[0] in options, (verb, argument)


@pytest.mark.parametrize("program", sorted(ROOT.glob("benchmarks/**/*.py")) + sorted(ROOT.glob("egs/*/local/*.py")))
def test_what_programs_beside_the_package_import_from_it_exists(program: Path) -> None:
    for node in ast.walk(ast.parse(program.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "spoofkit":
            module = importlib.import_module(str(node.module))
            for name in node.names:
                is_module = hasattr(module, "__path__") and importlib.util.find_spec(f"{node.module}.{name.name}")
                assert hasattr(module, name.name) or is_module, name.name
