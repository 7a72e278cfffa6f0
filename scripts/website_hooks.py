"""What mkdocs calls while it builds the site: adds the pages that are made from rules, signals, cases and commands."""

from __future__ import annotations

import logging
import re
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from website.knowledge import knowledge
from website.pages import diagnoses_by_group, every_page, linked

KNOWN = knowledge()
PAGES = every_page(KNOWN)
LOG = logging.getLogger("mkdocs.hooks.website")
FETCHED = re.compile(r'<(?:script|img|iframe|source|video|audio)\b[^>]*\ssrc="?((?:https?:)?//[^"\s>]+)|<link\b(?![^>]*canonical)[^>]*\shref="?((?:https?:)?//[^"\s>]+)')
DIAGNOSES, COMMANDS = "Diagnoses", "Every command"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    commands = [name for name in PAGES if name.startswith("commands/") and not name.endswith("index.md")]
    _fill(config.nav, DIAGNOSES, diagnoses_by_group(KNOWN))
    _fill(config.nav, COMMANDS, ["commands/index.md", *({name[9:-3]: name} for name in commands)])
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, markdown in PAGES.items():
        files.append(File.generated(config, name, content=markdown))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    return linked(markdown, KNOWN, page.file.src_uri)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """A page that would ask anybody for anything fails the strict build: the site is read offline."""
    for found in FETCHED.finditer(output):
        LOG.warning("%s asks for %s", page.file.src_uri, found[1] or found[2])
    return output


def _fill(nav: Any, title: str, children: list[Any]) -> None:
    """Puts `children` under the empty entry called `title`, wherever in the navigation it stands."""
    for entry in nav if isinstance(nav, list) else []:
        for name, below in entry.items() if isinstance(entry, dict) else ():
            if name == title:
                entry[name] = children
            else:
                _fill(below, title, children)
