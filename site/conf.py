"""Sphinx's settings for the site. `site/build.py` lays out the pages that it reads."""

from __future__ import annotations

import html
import re
from functools import cache
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

project = "alignlib"
html_title = "alignlib"
copyright = "the authors of alignlib, Apache-2.0"
extensions = ["myst_nb"]
myst_enable_extensions = ["attrs_inline", "dollarmath", "html_image", "strikethrough"]
myst_heading_anchors = 6
nb_merge_streams = True
nb_execution_mode = "off"  # what is shown is what the committed notebooks hold
# Headings of the glossary are of the fourth level; anchors within raw HTML are unknown to MyST,
# so `tests/test_site.py` follows every link instead.
suppress_warnings = ["myst.header", "myst.strikethrough", "myst.xref_missing"]

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_theme_options = {  # of words struck out, words put in, and what a head attends to
    "light_css_variables": {
        "struck": "#fbdcd6",
        "struck-ink": "#8f2b18",
        "added": "#d3e6f7",
        "added-ink": "#124a78",
        "copier-ink": "200 85 61",
        "reader-ink": "38 110 190",
    },
    "dark_css_variables": {
        "struck": "#4a1d15",
        "struck-ink": "#f3b5a8",
        "added": "#12344f",
        "added-ink": "#a9d3f5",
        "copier-ink": "232 128 105",
        "reader-ink": "110 175 240",
    },
}
html_copy_source = html_use_index = False
html_show_search_summary = False  # it would fetch pages, which a page in a folder may not
html_math_renderer = "mathml"  # drawn by the browser itself: no script, no font, no network
pygments_style, pygments_dark_style = "a11y-high-contrast-light", "a11y-high-contrast-dark"


def inline_math(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def display_math(translator: HTML5Translator, node: nodes.math_block) -> None:
    formula = convert(node.astext(), display="block")
    translator.body.append(f'<div class="math">{formula}</div>')
    raise nodes.SkipNode


@cache
def definitions(glossary: Path) -> dict[str, str]:
    """The glossary's terms, by anchor, each with its definition as plain text."""
    found, source = {}, glossary.read_text(encoding="utf-8")
    for term, text in re.findall(r"^#### (.+?)\n(.+?)(?=\n\n|\Z)", source, re.M | re.S):
        anchor = re.sub(r"[^\w\s-]", "", term.lower()).replace(" ", "-")
        plain = re.sub(r"\s*\(?\[[^]]*\]\([^)]*\)\)?", "", text.replace("*", ""))
        found[anchor] = " ".join(plain.split())
    return found


def add_definitions(app: Sphinx, page: str, _template: str, context: dict, _tree: object) -> None:
    """A link to a term of the glossary shows its definition where it is pointed at."""
    known = definitions(Path(app.srcdir) / "GLOSSARY.md")

    def with_definition(link: re.Match) -> str:
        text = html.escape(known[link["term"]], quote=True)
        return f'{link[0]} data-definition="{text}"'

    # The menu's headings name no level, which they owe to screen readers.
    menu = context["furo_navigation_tree"]
    context["furo_navigation_tree"] = menu.replace(
        'role="heading"', 'role="heading" aria-level="2"'
    )

    if "body" in context and page != "GLOSSARY":
        pattern = r'<a class="reference internal" href="[^"]*GLOSSARY\.html#(?P<term>[^"]+)"'
        context["body"] = re.sub(pattern, with_definition, context["body"])


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", (inline_math, None), (display_math, None))
    app.connect("html-page-context", add_definitions, priority=900)  # after the theme
