"""Every case of the drill with the bridge in this process; whole programs are in `programs`."""

from __future__ import annotations

import functools
import sys
import time

from bridge.drills.faults import controls, engine, video
from bridge.drills.faults.drill import Case


def _no_proc() -> str:
    return "" if sys.platform == "linux" else "Needs Linux, which lists a process's descriptors."


NOTHING = Case("nothing (for comparison)", lambda drill: time.sleep(3.0), tells=False)

CASES = (
    NOTHING,
    Case("source killed and restarted", video.source_killed),
    Case("two sources swapped", video.sources_swapped, tells=False),
    Case("size changed mid-stream", video.size_changed, tells=False),
    Case("receiver killed", video.receiver_killed, tells=False, receives=False),
    Case("poisoned input by OSC", video.poisoned_by_osc),
    Case("poisoned input from a snapshot", video.poisoned_by_snapshot),
    Case("engine killed (SIGKILL)", engine.killed, engine=True, restarts=True),
    Case("engine killed between two sends", engine.killed_between_two_sends, engine=True, restarts=True),
    Case(
        "engine frozen (SIGSTOP) while a fader moves",
        engine.frozen_while_a_fader_moves,
        engine=True,
    ),
    Case("engine hangs", functools.partial(engine.stops, "hang"), engine=True, restarts=True),
    Case("engine stops for 4 s", functools.partial(engine.stops, "pause"), engine=True),
    Case("engine out of memory", functools.partial(engine.injected, "oom"), engine=True, restarts=True),
    Case("engine raises", functools.partial(engine.injected, "error"), engine=True, restarts=True),
    Case("no descriptors left at a restart", engine.no_descriptors, engine=True, missing=_no_proc),
    Case("prompt thread out of memory", engine.prompt_out_of_memory),
    Case("disk full at a snapshot", controls.disk_full),
    Case("clock jumps an hour", controls.clock_jumps, tells=False),
    Case("port already in use", controls.port_taken),
    Case("web process frozen (SIGSTOP)", controls.page_frozen),
    Case("subscribers that never read", controls.subscriber_never_reads, tells=False),
)
"""In the order in which they are run."""
