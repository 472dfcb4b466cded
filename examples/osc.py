"""Drive a running Tidecast over OSC, and hear what took effect.

tidecast demo                          # in one terminal
.venv/bin/python examples/osc.py       # in another: sets a prompt and the strength, prints the strength in force
"""

from __future__ import annotations

import sys

from bridge.control.osc.client import OscClient


def main(port: int = 9000) -> float | None:
    """Set a prompt and the strength; return the strength in force, or None when nothing answers."""
    with OscClient("127.0.0.1", port) as tidecast:
        if not tidecast.answers():
            return None
        tidecast.send("/tidecast/prompt", ("fire",))
        tidecast.send("/tidecast/strength", (0.8,))
        for message in tidecast.watch(2.0):  # subscribes; the values in force come first
            if message.address == "/tidecast/strength":
                return float(message.args[0])
    return None


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9000
    strength = main(port)
    print(f"Nothing answers at UDP port {port}: start tidecast demo." if strength is None else f"strength {strength:g}")
    sys.exit(strength is None)
