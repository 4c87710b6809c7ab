"""The generated parts of the README: run this file to bring them up to date."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
from pathlib import Path


ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def part(text: str, name: str) -> str:
    """What stands between the two comments that name a generated part."""
    return re.search(rf"<!-- {name} -->\n(.*?)<!-- end of {name} -->", text, re.DOTALL)[1]


def code_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def example_output() -> str:
    """What the first Python block of the README prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code_blocks(README.read_text(), "python")[0], {})  # noqa: S102
    return printed.getvalue()


def committed_table() -> str:
    """The table as it was committed: a study that was run here since must not make the README wrong."""
    shown = subprocess.run(["git", "show", "HEAD:results/headline/table.md"], cwd=ROOT, capture_output=True, text=True)
    return shown.stdout if shown.returncode == 0 else (ROOT / "results/headline/table.md").read_text()


def with_parts(text: str, parts: dict[str, str]) -> str:
    for name, content in parts.items():
        text = text.replace(f"<!-- {name} -->\n{part(text, name)}", f"<!-- {name} -->\n{content}")
    return text


if __name__ == "__main__":
    table = (ROOT / "results/headline/table.md").read_text()
    parts = {"example output": f"```text\n{example_output()}```\n", "headline table": table}
    README.write_text(with_parts(README.read_text(), parts))
