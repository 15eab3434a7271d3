"""Draws docs/images/datapath.svg: the curves of bench/results/datapath.json over the number of rules.

    python bench/datapath_picture.py [--results FILE] [--out FILE]

Three panels share one logarithmic axis of rules: packets that nobody answers, and connections, as ratios to no policy at all; and
how many times Open vSwitch in userspace is the linear chain and the maps, in packets.  No library, no fonts.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

sys.path.insert(0, str(Path(__file__).parent))

from datapath import medians

HERE = Path(__file__).resolve().parent
COLOURS = {"nftables": "#1565c0", "iptables": "#2e7d32", "openvswitch": "#6a1b9a", "linear": "#c62828"}
NAMES = {
    "nftables": "nftables (maps)",
    "iptables": "iptables + ipset",
    "openvswitch": "Open vSwitch (userspace)",
    "linear": "linear iptables chain",
}
WIDTH, HEIGHT, LEFT, RIGHT, TOP, GAP = 860, 190, 64, 190, 58, 62
Series = Mapping[str, Sequence[tuple[int, float]]]


@dataclass(frozen=True)
class Panel:
    """One set of curves. ``band``: a range to shade, with its words."""

    title: str
    series: Series
    ticks: tuple[float, ...]
    top: float
    logarithmic: bool = False
    goal: float = 0.0
    band: tuple[float, float, str] | None = None

    def height(self, value: float) -> float:
        """Pixels from the top of the panel."""
        if self.logarithmic:
            low, high = math.log10(self.ticks[0]), math.log10(self.top)
            share = (math.log10(max(value, self.ticks[0])) - low) / (high - low)
        else:
            share = value / self.top
        return HEIGHT * (1 - min(max(share, 0.0), 1.0))


def across(rules: int, sizes: Sequence[int]) -> float:
    """Pixels from the left."""
    low, high = math.log10(sizes[0]), math.log10(sizes[-1])
    return LEFT + (WIDTH - LEFT - RIGHT) * (math.log10(rules) - low) / (high - low)


def drawn(panel: Panel, at: int, sizes: Sequence[int]) -> Iterator[str]:
    right = WIDTH - RIGHT
    yield f'<text x="{LEFT}" y="{at - 12}" font-size="13" font-weight="bold">{escape(panel.title)}</text>'
    if panel.band is not None:
        low, high, words = panel.band
        y, end = at + panel.height(high), at + panel.height(low)
        yield f'<rect x="{LEFT}" y="{y:.1f}" width="{right - LEFT}" height="{end - y:.1f}" fill="#fff3cd"/>'
        yield f'<text x="{LEFT + 6}" y="{(y + end) / 2 + 4:.1f}" font-size="11" fill="#7a5c00">{escape(words)}</text>'
    for tick in panel.ticks:
        y = at + panel.height(tick)
        yield f'<line x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#e0e0e0"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
    for size in sizes:
        x = across(size, sizes)
        yield f'<line x1="{x:.1f}" y1="{at}" x2="{x:.1f}" y2="{at + HEIGHT}" stroke="#f0f0f0"/>'
        yield f'<text x="{x:.1f}" y="{at + HEIGHT + 16}" text-anchor="middle">{size:,}</text>'
    if panel.goal:
        y = at + panel.height(panel.goal)
        yield f'<line x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#757575" stroke-dasharray="5 4"/>'
    placed: list[float] = []
    for name, points in sorted(panel.series.items(), key=lambda item: panel.height(item[1][-1][1])):
        colour = COLOURS["linear" if name.startswith("linear") else name.partition(" ")[0]]
        path = " ".join(f"{across(size, sizes):.1f},{at + panel.height(value):.1f}" for size, value in points)
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.2"/>'
        for size, value in points:
            x, y = across(size, sizes), at + panel.height(value)
            told = escape(f"{name}, {size:,} rules: {value:.2f}")
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{colour}"><title>{told}</title></circle>'
        y = max([at + panel.height(points[-1][1]) + 4, *(one + 14 for one in placed[-1:])])
        placed.append(y)
        last = points[-1][1]
        label = escape(f"{NAMES.get(name, name)} {f'{last:.2g}' if last < 100 else f'{last:,.0f}'}")
        yield f'<text x="{right + 10}" y="{y:.1f}" fill="{colour}">{label}</text>'


def picture(samples: Sequence[Mapping[str, object]], subtitle: str) -> str:
    told = medians(samples)
    sizes = sorted({size for _, _, size in told})
    names = [name for name in NAMES if (name, "unanswered", sizes[0]) in told]

    def ratios(kind: str) -> Series:
        return {name: [(size, told[name, kind, size]["ratio"]) for size in sizes] for name in names}

    def times(other: str) -> Sequence[tuple[int, float]]:
        return [
            (size, told["openvswitch", "unanswered", size]["rate"] / told[other, "unanswered", size]["rate"])
            for size in sizes
        ]

    shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    panels = [
        Panel("Packets that nobody answers: ratio to no policy", ratios("unanswered"), shares, 1.2, goal=0.85),
        Panel("TCP connections: ratio to no policy", ratios("connections"), shares, 1.2, goal=0.85),
        Panel(
            "Packets of Open vSwitch (userspace) over those of the others",
            {
                "linear iptables chain": times("linear"),
                "iptables + ipset": times("iptables"),
                "nftables maps": times("nftables"),
            },
            (0.5, 1, 3, 5, 10, 100),
            200,
            logarithmic=True,
            band=(3, 5, "“3 to 5 times”"),
        ),
    ]
    height = TOP + len(panels) * (HEIGHT + GAP)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="11" fill="#333333">',
        "<title>What rules cost a packet</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="20" font-size="11" fill="#616161">{escape(subtitle)}</text>',
    ]
    for number, panel in enumerate(panels):
        lines += drawn(panel, TOP + number * (HEIGHT + GAP), sizes)
    lines.append(
        f'<text x="{WIDTH - RIGHT}" y="{height - 8}" text-anchor="end" fill="#616161">rules (logarithmic)</text>'
    )
    return "\n".join([*lines, "</svg>", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results" / "datapath.json")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "images" / "datapath.svg")
    arguments = parser.parse_args()
    found = json.loads(arguments.results.read_text())
    versions = found["versions"]
    subtitle = (
        f"{found['cpus']} cores, Linux {versions['kernel']}, {versions['iptables']}, Open vSwitch {versions['openvswitch']} "
        f"({versions['datapath']}); medians; dashed: 0.85"
    )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(picture(found["samples"], subtitle))


if __name__ == "__main__":
    main()
