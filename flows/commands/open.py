"""``chapter open``: the latest report in a browser."""

import sys
import webbrowser
from pathlib import Path

from reports.chapter import QUESTIONS


def open_report(outputs: Path, id: str | None, *, only_print: bool) -> int:
    """Open ``latest/report.html``, at an exercise if one is named, and say its address; returns the exit status."""
    page = outputs / "latest" / "report.html"
    if not page.exists():
        print(f"chapter: there is no report in {page.parent}; `chapter run` writes one", file=sys.stderr)
        return 1
    address = page.as_uri() + (f"#{QUESTIONS[id].anchor}" if id else "")
    print(address, flush=True)
    if only_print or webbrowser.open(address):
        return 0
    print("chapter: no browser can be started here; open the address above in one", file=sys.stderr)
    return 1
