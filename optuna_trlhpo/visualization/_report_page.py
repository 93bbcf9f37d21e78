"""The page of `write_report`: its template, tables and packed parts."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterable, Sequence

from optuna_trlhpo._texts import in_html


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as HTML."""
    head = "".join(f"<th>{in_html(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{in_html(cell)}</td>' for cell in row)}</tr>\n" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>\n{body}</table></div>'


def pairs(rows: Iterable[tuple[str, str]]) -> str:
    """Return a table of names and texts as HTML."""
    cells = (f"<tr><th>{in_html(key)}</th><td>{in_html(text)}</td></tr>\n" for key, text in rows)
    return f'<div class="wide"><table class="pairs">{"".join(cells)}</table></div>'


def packed(text: str) -> str:
    """Return a text that the page's script unpacks."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>$title</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #222; }
body { max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; margin: 2rem 0 .5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top; }
th:first-child, td:first-child, th:last-child, td:last-child { text-align: left; }
.pairs th, .pairs td { text-align: left; }
.figure + p, .under { color: #444; }
.note { color: #666; font-style: italic; }
code { overflow-wrap: anywhere; }
</style>
</head>
<body>
<h1>Study $title</h1>
$summary
<h2>The best network</h2>
$best
<h2>The best networks</h2>
$leaders
$confirmed
$figures
<h2>Settings</h2>
$settings
<h2>Versions</h2>
<p>This page was written on $written with these versions.</p>
$versions
<noscript><p class="note">The figures need JavaScript.</p></noscript>
<script type="text/plain" id="plotly">$plotly</script>
<script type="text/plain" id="data">$data</script>
<script>
async function unpacked(id) {
  const text = atob(document.getElementById(id).textContent);
  const bytes = Uint8Array.from(text, (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}
async function draw() {
  const library = document.createElement("script");
  library.textContent = await unpacked("plotly");
  document.head.append(library);
  for (const { id, figure } of JSON.parse(await unpacked("data"))) {
    await Plotly.newPlot(id, figure.data, figure.layout, { responsive: true });
  }
  document.body.dataset.drawn = "true";
}
if (typeof DecompressionStream === "undefined") {
  for (const place of document.querySelectorAll(".figure")) {
    place.textContent = "This browser is too old to unpack the figures; one of 2023 or later can.";
  }
} else {
  draw();
}
</script>
</body>
</html>
"""
