"""Pages of HTML, from Jinja2 templates that extend `page.html` and may use the macros in `parts.html`.

Every text that is put in is escaped, and a name that the template uses and nobody gave is an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def render(template: Path, **values: Any) -> bytes:
    """Return the page of a template file with these values, in UTF-8: equal values give equal bytes.

    Besides `values` it has the filters `number` (1,234) and `b64` (bytes in base64).
    """
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
