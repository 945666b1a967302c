"""The two pages of the service: one for people with recordings, and the reference. Neither asks for anything else.

Style and script are inside, and a Content-Security-Policy names their hashes: nothing else runs or is loaded, and only
this service can be asked.
"""

import base64
import hashlib
from importlib import resources
from typing import Any, NamedTuple

from spoofkit.addons.serve.answers import MadeWith

FOLDER = "spoofkit.addons.serve"


class Page(NamedTuple):
    """A page and what it may do."""

    html: str
    policy: str
    """Its Content-Security-Policy."""


def front_page(
    made_with: MadeWith, can_score: bool, can_localize: bool, needs_key: bool, most_bytes: int, most_seconds: float
) -> Page:
    """Render the page for people with recordings.

    Args:
        made_with: What makes the scores.
        can_score: Whether the model has an utterance head.
        can_localize: Whether it has a frame head.
        needs_key: Whether a key is required.
        most_bytes: Largest recording.
        most_seconds: Longest recording.
    """
    script = _read("page.js")
    return _render(
        "page.html.jinja", script, made_with=made_with, can_score=can_score, can_localize=can_localize,
        needs_key=needs_key, most_megabytes=most_bytes / 1e6, most_seconds=most_seconds,
    )  # fmt: skip


def reference_page(document: dict[str, Any]) -> Page:
    """Render the reference from the OpenAPI document."""
    return _render("reference.html.jinja", "", document=document)


def _render(template: str, script: str, **values: Any) -> Page:
    import jinja2

    style = _read("page.css")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    html = environment.from_string(_read(template)).render(style=style, script=script, **values)
    may_run = f"script-src {_hash(script)}; connect-src 'self'; media-src blob:; " if script else ""
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; {may_run}img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return Page(html, policy)


def _read(name: str) -> str:
    return resources.files(FOLDER).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
