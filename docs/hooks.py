"""What mkdocs takes from the repository itself, so that nothing is written down twice.

Adds README.md, CONTRIBUTING.md and every MODEL_CARD.md as pages, fills `<!-- settings -->`,
`<!-- records -->` and `<!-- commands -->`, and brings links that leave docs/ to the same file on
the site: a page where there is one, else a copy of the file.
"""

from __future__ import annotations

import logging
import os
import re
from inspect import cleandoc
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
CARDS = {
    card: f"models/{'_'.join(card.relative_to(ROOT / 'medgen').parts[:-1])}.md"
    for card in sorted((ROOT / "medgen").rglob("MODEL_CARD.md"))
}
PAGES = {ROOT / "README.md": "overview.md", ROOT / "CONTRIBUTING.md": "contributing.md", **CARDS}
CARD_INDEX = "models/index.md"
LINK = re.compile(r"\[([^\]]*)\]\((?![a-z]+:|#|/)([^)#\s]+)(#[^)\s]*)?\)")
EXAMPLES = re.compile(r"^Examples:\n\n(.*?)(?=^\*\*|^#|\Z)", flags=re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^(```.*?^```$)", flags=re.MULTILINE | re.DOTALL)

# griffe says of each argument that its type is in the signature and not in the docstring.
logging.getLogger("mkdocs.plugins.griffe").setLevel(logging.ERROR)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the model cards into the navigation."""
    cards = [{title(card): uri} for card, uri in CARDS.items()]
    for entry in config.nav or []:
        if entry.get("Model cards"):
            entry["Model cards"] = [CARD_INDEX, *cards]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages whose text lies elsewhere in the repository."""
    for path, uri in PAGES.items():
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    files.append(File.generated(config, CARD_INDEX, content=card_index()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in what is made from code, and mend the links that leave docs/."""
    source = Path(page.file.abs_src_path) if page.file.abs_src_path else DOCS / page.file.src_uri
    for marker, made in MADE.items():
        if f"<!-- {marker} -->" in markdown:
            markdown = markdown.replace(f"<!-- {marker} -->", made())

    def mended(match: re.Match[str]) -> str:
        words, path, anchor = match.groups(default="")
        target = (source.parent / path).resolve()
        if target.is_dir():
            return words
        uri = site_uri(target, config, files)
        return f"[{words}]({os.path.relpath(uri, Path(page.file.src_uri).parent)}{anchor})"

    parts = FENCE.split(markdown)
    return "".join(part if part.startswith("```") else LINK.sub(mended, part) for part in parts)


def site_uri(target: Path, config: MkDocsConfig, files: Files) -> str:
    """Where a file of the repository is on the site; what is not yet there is put there."""
    if target.is_relative_to(DOCS):
        return target.relative_to(DOCS).as_posix()
    if target in PAGES:
        return PAGES[target]
    uri = f"source/{target.relative_to(ROOT).as_posix()}"
    if target.is_file() and files.get_file_from_path(uri) is None:
        files.append(File.generated(config, uri, abs_src_path=str(target)))
    return uri


def title(card: Path) -> str:
    """The heading of a model card."""
    return card.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")


def card_index() -> str:
    """The page that lists the model cards."""
    lines = [
        "# Model cards",
        "",
        "Each weights folder of the package has its card: what the model is, what it was trained "
        "on, its figures on real held-out images, and what it cannot do.",
        "",
    ]
    lines += [f"- [{title(card)}]({Path(uri).name})" for card, uri in CARDS.items()]
    return "\n".join([*lines, ""])


def settings_table() -> str:
    """Every setting with its default, its values and what it is for."""
    from medgen.settings import Settings

    lines = ["| variable | default | values | what it is |", "| --- | --- | --- | --- |"]
    for name, about in Settings.model_json_schema()["properties"].items():
        default = about.get("default")
        shown = "not set" if default is None else f"`{default}`"
        lines.append(
            f"| `MEDGEN_{name.upper()}` | {shown} | {values(about)} | {about['description']} |"
        )
    return "\n".join(lines)


def values(about: dict[str, Any]) -> str:
    """What a setting may be, from its JSON schema."""
    for kind in (about, *about.get("anyOf", [])):
        if "enum" in kind:
            return ", ".join(f"`{value}`" for value in kind["enum"])
        bounds = {
            "minimum": "from {}",
            "exclusiveMinimum": "above {}",
            "maximum": "to {}",
        }
        said = [text.format(kind[key]) for key, text in bounds.items() if key in kind]
        if said:
            return " ".join(said)
        if kind.get("format") == "path":
            return "a path"
        if kind.get("type") in ("string", "array"):
            return "text" if kind["type"] == "string" else "two numbers from 0 to 1"
    return ""


def record_tables() -> str:
    """Every record with its fields as they are written in the code, and the words that they use."""
    from medgen import records

    lines = ["| name | one of |", "| --- | --- |"]
    for name, kind in vars(records).items():
        if get_origin(kind) is Literal:
            lines.append(f"| `{name}` | {', '.join(f'`{value}`' for value in get_args(kind))} |")
    for name, kind in vars(records).items():
        if not (isinstance(kind, type) and issubclass(kind, records.Record)):
            continue
        lines += ["", f"## {name}", "", cleandoc(kind.__doc__ or "").replace("Args:", ""), ""]
        if kind.__annotations__:
            lines += ["| field | type | default |", "| --- | --- | --- |"]
        for field, annotation in kind.__annotations__.items():
            if field in kind.model_fields:
                about = kind.model_fields[field]
                default = about.get_default(call_default_factory=True)
                shown = "needed" if about.is_required() else f"`{default!r}`"
                lines.append(f"| `{field}` | `{annotation}` | {shown} |")
    return "\n".join(lines)


def command_reference() -> str:
    """All commands with their options, as typer documents them; examples as blocks of code."""
    import typer
    from typer.cli import get_docs_for_click

    from medgen.cli import app

    command: Any = typer.main.get_command(app)
    say_whole_lines(command)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="medgen")
    text = re.sub(r"^#", "##", text, flags=re.MULTILINE)
    return EXAMPLES.sub(lambda found: f"Examples:\n\n```\n{squeezed(found[1])}\n```\n", text)


def say_whole_lines(group: Any) -> None:
    """Let lists of commands have each one's first line, which typer would cut."""
    for command in group.commands.values():
        command.short_help = (command.help or "").splitlines()[0]
        if hasattr(command, "commands"):
            say_whole_lines(command)


def squeezed(lines: str) -> str:
    """Lines without the empty ones."""
    return "\n".join(line for line in lines.splitlines() if line.strip())


MADE = {"settings": settings_table, "records": record_tables, "commands": command_reference}
