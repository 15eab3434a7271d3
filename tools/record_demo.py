"""Draws docs/images/demo.svg: the side-by-side table of a real `isoplane demo` on this machine. Run as root."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from rich.console import Console

from isoplane.cli.scenes import pod_and_vm

TARGET = Path(__file__).resolve().parents[1] / "docs" / "images" / "demo.svg"


def main() -> None:
    console = Console(record=True, width=118, force_terminal=True, color_system="truecolor")
    asyncio.run(pod_and_vm.run(console, simulated=False))
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    # The picture asks nobody for a font: the reader's own monospace will do.
    TARGET.write_text(re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title="isoplane demo"), flags=re.DOTALL))


if __name__ == "__main__":
    main()
