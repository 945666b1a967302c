"""Pages: each is one HTML file that loads nothing; what they look like is in `page.css.jinja`.

Every text on a page is escaped, and a script runs only if the Content-Security-Policy names its hash.
"""

import base64
import hashlib
from typing import Any

from spoofkit.terminal import visible_lines

GENERATOR = '<meta name="generator" content="spoofkit">'
"""In the head of pages, so that one without its record is recognised as ours."""


def render(template: str, filters: dict[str, Any] | None = None, **values: Any) -> str:
    """Render a page.

    Args:
        template: Path of the template, from the package's folder.
        filters: Functions that it uses, besides `csp_hash`.
        values: Its variables; one that is missing is an error.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("spoofkit", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=visible_lines,
    )
    environment.filters |= {"csp_hash": _csp_hash, **(filters or {})}
    return environment.get_template(template).render(generator=GENERATOR, **values)


def data_address(kind: str, content: bytes) -> str:
    """Return the address by which a page holds a picture or audio itself; `kind` is its media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _csp_hash(script: str) -> str:
    """Return the hash by which a Content-Security-Policy names the only script that may run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
