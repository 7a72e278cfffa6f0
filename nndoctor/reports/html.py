"""The report as one HTML file: complete without scripts, nothing fetched from anywhere, safe with hostile names.

Every text passes through autoescape, and before that through `visible`, which takes out what would reorder or hide
text. Scripts and styles are allowed by their hashes alone; data lies in elements that are never executed.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import unicodedata
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from nndoctor.reports import svg
from nndoctor.reports.charts import Chart, number, quantity, whole_number
from nndoctor.reports.json_report import diagnosis_document, finite, generator
from nndoctor.reports.sections import SECTIONS, Section
from nndoctor.reports.sections.common import bands, sentence, since
from nndoctor.reports.sections.heatmap import Picture
from nndoctor.reports.sections.layers import findings_by_layer
from nndoctor.reports.text_safety import clean
from nndoctor.reports.view import RunView, grade, spelled

Filled = list[tuple[Section, Mapping[str, Any]]]


def render(view: RunView) -> str:
    """The whole page as text."""
    filled: Filled = []
    for section in SECTIONS:
        values = section.build(view)
        if values is not None:
            filled.append((section, values))
    style, uplot, own = stylesheet(), asset("uplot-1.6.32.iife.min.js"), script()
    return environment().get_template("report.html").render(
        view=view,
        filled=filled,
        mark=grade(view.diagnosis),
        policy=content_policy([uplot, own], [style]),
        generator=generator(),
        style=Markup(style),
        uplot=Markup(uplot),
        script=Markup(own),
        licence=asset("uplot-LICENSE.txt"),
        document=in_script(finite(diagnosis_document(view, series=False))),
        data=Markup(packed(page_data(view, filled))),
        ramp=colour_ramp(),
        svg=svg,
        since=since,
    )


def environment() -> Environment:
    """Templates of the report: an unknown name is an error, every text is escaped and made visible."""
    made = Environment(
        loader=PackageLoader("nndoctor.reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=visible,
    )
    made.filters["number"] = number
    made.filters["quantity"] = quantity
    made.filters["spelled"] = spelled
    made.filters["whole"] = whole_number
    return made


def visible(value: Any) -> Any:
    """`value` as it is; a text with control, bidi or other invisible characters without them.

    >>> visible("conv\\u202e1")
    'conv1'
    """
    if isinstance(value, Markup) or not isinstance(value, str) or (value.isascii() and value.isprintable()):
        return value
    hidden = any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Mn", "Me") for character in value)
    return clean(value) if hidden else value


def asset(name: str) -> str:
    return (files("nndoctor.reports") / "assets" / name).read_text(encoding="utf-8").strip()


def stylesheet() -> str:
    return asset("uplot-1.6.32.min.css") + "\n" + asset("report.css")


SCRIPTS = ("helpers.js", "charts.js", "layers.js", "icicle.js", "relief.js", "page.js")
"""Parts of the page's own script, in the order in which they need each other."""


def script() -> str:
    return "\n".join(asset(name) for name in SCRIPTS)


def content_policy(scripts: list[str], styles: list[str]) -> str:
    """Nothing may be loaded or run but the scripts and styles with these texts, and pictures inside the page."""

    def hashes(texts: list[str]) -> str:
        digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    return (
        f"default-src 'none'; script-src {hashes(scripts)}; style-src {hashes(styles)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def in_script(value: Any) -> Markup:
    """JSON that can end neither the script element nor a line of it, in ASCII."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def packed(value: Any) -> str:
    """JSON, compressed, as base64; the same bytes for the same value."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def page_data(view: RunView, filled: Filled) -> dict[str, Any]:
    """What the script in the page draws: all charts, the heat maps, the layers in them and what was found about each."""
    pictures: list[Picture] = next((values["pictures"] for section, values in filled if section.id == "heatmap"), [])
    told, by_layer = layer_findings(view)
    return {
        "charts": [chart.data() for chart in charts_of(filled)],
        "maps": [{**picture.map.data(), "name": picture.name, "summary": picture.summary} for picture in pictures],
        "bands": [list(band) for band in bands(view)],
        "layers": [clean(name) for name in view.targets.layers],
        "findings": told,
        "layer_findings": by_layer,
        "reliefs": next((values["reliefs"] for section, values in filled if section.id == "lab"), []),
        "palette": "".join(f"{r:02x}{g:02x}{b:02x}" for r, g, b in svg.palette().tolist()),
    }


def layer_findings(view: RunView) -> tuple[list[dict[str, str]], dict[str, list[int]]]:
    """The findings about layers in words, and for each layer the places of its own among them."""
    by_layer = findings_by_layer(view)
    known = list({id(finding): finding for found in by_layer.values() for finding in found}.values())
    places = {id(finding): place for place, finding in enumerate(known)}
    told = [
        {"title": clean(spelled(f.diagnosis)), "tone": f.severity.label, "since": clean(since(f)), "message": clean(sentence(f))}
        for f in known
    ]
    return told, {str(layer): [places[id(finding)] for finding in found] for layer, found in by_layer.items()}


def charts_of(filled: Filled) -> Iterator[Chart]:
    for _, values in filled:
        yield from values.get("charts", ())


def colour_ramp() -> Markup:
    """The colours of the heat map from low to high, as a picture."""
    address = svg.png(np.arange(svg.LEVELS, dtype=np.uint8)[None, :])
    return Markup('<img class="ramp" src="{}" alt="dark blue to yellow" width="160" height="10">').format(address)
