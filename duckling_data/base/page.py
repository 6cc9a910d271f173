"""Pages of HTML, from Jinja2 templates that extend `page.html`; text is escaped, and a missing value is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def render(template: Path, **values: Any) -> bytes:
    """Return a template's page in UTF-8. It has the filters `number` (1,234) and `b64` (bytes in base64), too."""
    import base64

    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = "{:,}".format
    environment.filters["b64"] = lambda content: base64.b64encode(content).decode("ascii")
    text = environment.get_template(template.name).render(values)
    return text.encode("utf-8", "backslashreplace")  # a file's name need not be UTF-8
