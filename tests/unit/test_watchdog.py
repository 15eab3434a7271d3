"""Who holds the event loop is logged, and a signal ends the process whatever spins: in processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

LOOPS = ("asyncio", "uvloop")


def start(body: str, loop: str) -> subprocess.Popen[str]:
    """Run ``body`` as the inside of ``async def main`` under one of the event loops, and wait for its first line."""
    program = f"""
import asyncio, logging, sys, time
import {loop}
from isoplane.watchdog import Watchdog, on_signals
logging.basicConfig(format="%(message)s")

def culprit(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass

async def main():
{textwrap.indent(textwrap.dedent(body), "    ")}

{loop}.run(main())
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize("loop", LOOPS)
def test_what_holds_the_loop_is_logged_once_with_its_stack(loop: str) -> None:
    process = start(
        """
        dog = Watchdog(held=0.3)
        dog.start()
        print("begun", flush=True)
        culprit(1.5)
        await asyncio.sleep(0.6)
        print(dog.stalls, dog.longest > 0.3)
        dog.stop()
        """,
        loop,
    )
    out, err = process.communicate(timeout=30)
    assert out == "1 True\n"
    assert err.count("the event loop was held") == 1
    assert "in culprit" in err


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_loop_that_answers(loop: str, number: signal.Signals) -> None:
    process = start(
        """
        asked = asyncio.Event()
        on_signals(asked.set)
        print("begun", flush=True)
        await asked.wait()
        print("stopped cleanly")
        """,
        loop,
    )
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert (out, process.returncode) == ("stopped cleanly\n", 0)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_signal_ends_a_loop_that_spins_and_says_what_held_it(loop: str) -> None:
    process = start(
        """
        on_signals(lambda: None, unanswered=0.3)
        print("begun", flush=True)
        culprit(60)
        """,
        loop,
    )
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "does not answer" in err
    assert "in culprit" in err
