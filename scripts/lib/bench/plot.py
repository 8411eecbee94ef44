"""Bar charts of a comparison as SVG files: one a case and unit, a group of bars a row, readable on light and dark pages.

Within a row bars are as long as their figures; rows have different scales, so that one of 40,000 stands beside one of
8,000,000. Where less is better the title says so.
"""

import html
import os
import re

from .rounds import shown, verdict

WIDTH, LABEL, FIGURES = 760, 170, 170
BAR, GAP, GROUP_GAP, HEAD, FOOT = 16, 3, 14, 58, 14
OURS = "ours"
# Ours first; the others in the order in which they come. Each is told apart on white and on black.
COLORS = ["#0b84d8", "#e07b16", "#2f9e5d", "#a855b5", "#c2484a", "#8a7a3d", "#5f6b7a", "#17a2a2"]
LESS_IS_BETTER = {"ms", "us", "bytes/conn", "bytes/flow", "bytes", "MB", "KiB"}


def plots(rows, folder):
    """Writes the charts of `rows`, as `compare` makes them, and returns their paths."""
    os.makedirs(folder, exist_ok=True)
    groups = {}
    for row in rows:
        groups.setdefault((row["name"].partition(" ")[0], row["unit"]), []).append(row)
    # A peer has one color in all of them.
    peers = list(dict.fromkeys(who for row in rows for who in row["peers"]))
    colors = {who: COLORS[index % len(COLORS)] for index, who in enumerate([OURS, *peers])}
    paths = []
    for (case, unit), group in groups.items():
        path = os.path.join(folder, f"{slug(case)}-{slug(unit)}.svg")
        with open(path, "w") as out:
            out.write(chart(case, unit, group, colors))
        paths.append(path)
    return paths


def slug(text):
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def chart(case, unit, rows, colors):
    present = [who for who in colors if any(figures(row).get(who) is not None for row in rows)]
    y = HEAD
    body = []
    for row in rows:
        bars = [(who, value) for who, value in figures(row).items() if value is not None]
        most = max((value for _, value in bars), default=0) or 1
        middle = y + len(bars) * (BAR + GAP) / 2
        name = row["name"].partition(" ")[2] or case
        body.append(text(LABEL - 8, middle, name, "label", anchor="end"))
        for who, value in bars:
            length = max(1.0, (WIDTH - LABEL - FIGURES) * value / most)
            ratio = f"  {verdict(row)}" if who == OURS and row.get("ratio") is not None else ""
            body.append(f'<rect x="{LABEL}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2" fill="{colors[who]}">'
                        f"<title>{html.escape(f'{who}: {shown(value)} {unit}')}</title></rect>")
            body.append(text(LABEL + length + 6, y + BAR - 4, shown(value) + ratio, "strong" if who == OURS else "figure"))
            y += BAR + GAP
        y += GROUP_GAP
    height = y - GROUP_GAP + FOOT
    legend, x = [], LABEL
    for who in present:
        legend.append(f'<rect x="{x}" y="34" width="11" height="11" rx="2" fill="{colors[who]}"/>')
        legend.append(text(x + 15, 44, who, "figure"))
        x += 30 + 7 * len(who)
    direction = "less is better" if unit in LESS_IS_BETTER else "more is better"
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{html.escape(f"{case}: {unit}")}">',
        "<style>text{font:12px system-ui,sans-serif;fill:#24292f}.title{font-size:15px;font-weight:600}.strong{font-weight:600}"
        ".figure{fill:#57606a}@media (prefers-color-scheme:dark){text{fill:#e6edf3}.figure{fill:#9da7b3}}</style>",
        text(8, 22, f"{case}: {unit} ({direction})", "title"),
        *legend, *body, "</svg>",
    ]) + "\n"


def figures(row):
    return {OURS: row["ours"], **row["peers"]}


def text(x, y, words, kind, anchor="start"):
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(words)}</text>'
