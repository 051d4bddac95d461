"""What a trace has found, as one HTML file to look at: flame graph, costs against the link's break-even line, table.

Invariants: the file needs nothing else, asks nothing of any network, and runs no script but the one that it was made with
(its Content-Security-Policy names that by its hash), whatever the names of functions are.
"""

import base64
import hashlib
import html
import importlib.resources
import json
import os
from string import Template

import msgspec

from radium import files
from radium.live import printable
from radium.tracer.discovery.findings import Findings, pruned

# A frame of fewer samples is narrower than a pixel of any screen, unless somebody zooms far in.
NARROWEST = 1 / 5000


def write(findings: Findings, path: str | os.PathLike[str]) -> None:
    """Write the page. Raises JobFailed."""
    files.write(path, page(findings), "the page", "--html")


def page(findings: Findings) -> str:
    """The file's text."""
    style, script = _read("page.css"), _read("page.js")
    program = printable(" ".join(findings.program)) or "a program"
    return Template(_read("page.html")).substitute(
        policy=_policy(style, script), title=html.escape(program), style=style, script=script, data=_data(findings)
    )


def _policy(style: str, script: str) -> str:
    """CSP level 3: nothing is fetched, and of what is in the page only these two have a say."""
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _data(findings: Findings) -> str:
    """JSON in which nothing can end the element that it stands in."""
    fewest = max(1, round(findings.tree.samples * NARROWEST))
    shown = msgspec.structs.replace(findings, tree=pruned(findings.tree, fewest))
    text = json.dumps(msgspec.to_builtins(shown), separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _read(name: str) -> str:
    return (importlib.resources.files(__package__) / name).read_text("utf-8")
