"""Pages that are made from the source when the site is built, so that they cannot fall behind it.

`index.md` is README.md; `methods/NAME.md` a page a method; `reference/` the Python interface, the commands and the table schema.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

import rislab
from rislab.ablation import signature
from rislab.ablation.schema import SCHEMA
from rislab.cli.main import parser
from rislab.report import reference_pages

ROOT = Path(__file__).resolve().parents[2]


def on_config(config: Any) -> Any:
    """Methods are listed by folder: a new one edits no existing file."""
    pages = [{name: f"methods/{name}.md"} for name in sorted(signature.methods())]
    config.nav = [{"Methods": pages} if "Methods" in entry else entry for entry in config.nav]
    return config


def on_files(files: Files, config: Any) -> Files:
    made = {"index.md": start((ROOT / "README.md").read_text())}
    made |= {
        f"methods/{name}.md": reference_pages.method_page(name, class_path, ROOT / "experiments")
        for name, class_path in signature.methods().items()
    }
    made["reference/api.md"] = reference_pages.api_page(rislab.__all__, sorted((ROOT / "rislab" / "api").glob("*.py")))
    made["reference/commands.md"] = reference_pages.commands_page(parser())
    made["reference/table-schema.md"] = reference_pages.schema_page(SCHEMA)
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """A link to a file outside the site becomes the file's path."""
    return re.sub(r"\[([^\]]+)\]\(\.\./((?!docs/)[^)]+)\)", r"`\2`", markdown)


def start(readme: str) -> str:
    """README.md as a page of the site: links into docs/ are its own, other files stay names."""
    text = re.sub(r"\]\(docs/", "](", readme)
    return re.sub(r"\[([^\]]+)\]\((?!https?:)([^)#]+)\)(?<!\.md\))(?<!\.png\))", r"\1", text)
