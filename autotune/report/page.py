"""HTML pages that are one file each: no request leaves them, and what comes from data is text.

A page is a template that extends ``page.html.j2`` and fills its blocks: ``title`` (text), ``main`` (what stands below
the header) and, if need be, ``subtitle``, ``style`` (CSS) and ``scripts`` (a ``<script nonce="{{ nonce }}">``; only a
script with the page's own nonce runs). A script hears of its figures through ``autotune.figures``, a promise that
holds once all are drawn. plotly.js is in a page once, compressed, and only if a figure is.
"""

from __future__ import annotations

import base64
import gzip
import secrets
from functools import cache
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from autotune.report.wording import ends, interval, percent, value

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

#: Scripts and styles that are in the page, pictures that a script drew; nothing else, from nowhere.
_POLICY = ("default-src 'none'; script-src 'nonce-{nonce}'; style-src 'unsafe-inline'; img-src data: blob:; "
           "base-uri 'none'; form-action 'none'")


def render(template: str, **context: object) -> str:
    """The page that a template of this package makes of ``context``; every value is escaped unless it is Markup.

    Raises:
        jinja2.UndefinedError: the template names what ``context`` lacks.
    """
    nonce = secrets.token_urlsafe(16)
    return _templates().get_template(template).render(
        context, nonce=nonce, policy=_POLICY.format(nonce=nonce), plotly=_plotly)


def figure_html(figure: Figure, element_id: str, label: str = "") -> Markup:
    """The place of a Plotly figure in a page, with its data beside it; the page's script draws it.

    ``label`` says in words what it shows, for those who do not see it. Texts in the figure that come from data must
    have been through ``plain``: Plotly reads a few HTML tags in them.
    """
    from plotly.io import to_json

    text = to_json(figure, validate=False)
    for sign in "<>&\u2028\u2029":  # nothing in it may end the script element
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    height = figure.layout.height or 450
    return Markup(
        '<div class="figure" id="{id}" role="group" aria-label="{label}" style="min-height: {height}px">'
        '<script type="application/json">{data}</script><p class="muted">The plot needs JavaScript.</p></div>'
    ).format(id=element_id, label=label or element_id, height=int(height), data=Markup(text))


def plain(text: object) -> str:
    """A text from data for a Plotly figure, in which it is shown as it is."""
    return str(escape(str(text)))


@cache
def _templates() -> Environment:
    found = Environment(loader=PackageLoader("autotune.report"), autoescape=True, undefined=StrictUndefined,
                        trim_blocks=True, lstrip_blocks=True)
    found.filters |= {"value": value, "interval": interval, "ends": ends, "percent": percent}
    return found


@cache
def _plotly() -> str:
    """plotly.js, gzip in base64: 2 MB in place of 5."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()
