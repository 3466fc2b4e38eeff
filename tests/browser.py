"""Pages as a real browser shows them."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this machine: apt install chromium"
)
ASK = """
const told = [];
for (const frame of document.querySelectorAll("iframe")) {
  const page = frame.contentDocument;
  told.push(((frame, page, root) => { PROBE })(frame, page, page.documentElement));
}
const out = document.createElement("pre");
out.id = "told"; out.textContent = JSON.stringify(told);
document.body.append(out);
"""


def in_browser(folder: Path, pages: list[tuple[str, int]], probe: str) -> list[dict[str, Any]]:
    """What a headless Chromium tells of pages in frames of these widths: ``probe`` is the body of
    a function of a frame, its page and the page's root."""
    frames = "".join(
        f'<iframe width="{width}" height="3000" srcdoc="{html.escape(text)}"></iframe>'
        for text, width in pages
    )
    harness = folder / "harness.html"
    harness.write_text(
        "<!DOCTYPE html><meta charset='utf-8'><style>iframe { border: 0 }</style><body>"
        "<script>window.alert = () => { window.alerted = true; };</script>"
        f"{frames}<script>addEventListener('load', () => {{ {ASK.replace('PROBE', probe)} }});"
        "</script></body>"
    )
    assert CHROMIUM is not None
    run = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
            f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=20000",
            harness.as_uri(),
        ],
        capture_output=True, text=True, timeout=250, check=True,
    )  # fmt: skip
    (told,) = re.findall(r'<pre id="told">(.*?)</pre>', run.stdout, flags=re.DOTALL)
    return json.loads(html.unescape(told))
