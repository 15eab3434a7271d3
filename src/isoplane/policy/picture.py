"""The reachability matrix as an SVG picture: sources down, destinations across, one colour for each answer."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

_CELL, _LETTER, _GAP = 18, 6.3, 12
_COLOURS = {"all": "#2e7d32", "some": "#f9a825", "none": "#eceff1", "self": "#b0bec5"}


def svg(names: Sequence[str], matrices: Sequence[Sequence[int]], title: str) -> str:
    """``matrices``: for each port, for each source the set of its destinations. Green: on all of them, amber: on some."""
    margin = int(max((len(n) for n in names), default=1) * _LETTER) + _GAP
    top = margin + 28
    width, height = margin + _CELL * len(names) + _GAP, top + _CELL * len(names) + 40
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{max(width, 420)}" height="{height}" '
        'font-family="ui-monospace, monospace" font-size="11">',
        f"<title>{escape(title)}</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="8" y="18" font-size="13" font-weight="bold">{escape(title)}</text>',
    ]
    for i, name in enumerate(names):
        y, x = top + i * _CELL, margin + i * _CELL
        label = escape(name)
        lines.append(f'<text x="{margin - 6}" y="{y + 13}" text-anchor="end">{label}</text>')
        lines.append(f'<text transform="translate({x + 13} {top - 6}) rotate(-90)">{label}</text>')
    for i, source in enumerate(names):
        for j, destination in enumerate(names):
            reached = sum(matrix[i] >> j & 1 for matrix in matrices)
            kind = "self" if i == j else "all" if reached == len(matrices) else "some" if reached else "none"
            told = escape(f"{source} → {destination}: {reached} of {len(matrices)} ports")
            lines.append(
                f'<rect x="{margin + j * _CELL}" y="{top + i * _CELL}" width="{_CELL - 2}" height="{_CELL - 2}" '
                f'rx="2" fill="{_COLOURS[kind]}"><title>{told}</title></rect>'
            )
    legend = top + _CELL * len(names) + 22
    for n, (kind, text) in enumerate((("all", "all ports"), ("some", "some ports"), ("none", "no port"))):
        lines.append(
            f'<rect x="{8 + n * 120}" y="{legend - 11}" width="14" height="14" rx="2" fill="{_COLOURS[kind]}"/>'
        )
        lines.append(f'<text x="{28 + n * 120}" y="{legend}">{text}</text>')
    return "\n".join([*lines, "</svg>", ""])
