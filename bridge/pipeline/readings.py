"""The readings of the bridge itself; `bridge.pipeline.monitor` measures most of them."""

from __future__ import annotations

from bridge.pipeline.alpha.controls import UNABLE
from engine.control import Kind, Reading

STATES = ("loading", "running", "no-input", "stalled", "error")
"""Values of the reading `state`."""

TARGETS = ("held", "late", "missed")
"""Values of the reading `target`: the latency is within the target, up to twice as long, or longer."""

DROP_CAUSES = ("input", "late", "engine", "output")
"""Why a frame was dropped: replaced by a newer one before the engine took it, finished too late, lost with an engine
process that ended, or replaced by a newer one before the first output took it."""

PERFORMANCE = (
    Reading("state", "/status/state", Kind.TEXT, "", "One of " + ", ".join(STATES) + "."),
    Reading("fps_in", "/status/fps/in", Kind.FLOAT, "1/s", "Frames that arrive per second."),
    Reading("fps_out", "/status/fps/out", Kind.FLOAT, "1/s", "Frames that are sent per second."),
    Reading("fps_engine", "/status/fps/engine", Kind.FLOAT, "1/s", "Restyled frames per second."),
    Reading("latency", "/status/latency", Kind.FLOAT, "ms", "From capture to send, median of the last seconds."),
    Reading(
        "target",
        "/status/target",
        Kind.TEXT,
        "",
        "Whether the latency target is held: one of " + ", ".join(TARGETS) + "; empty unless the state is running.",
    ),
    Reading("latency_p95", "/status/latency/p95", Kind.FLOAT, "ms", "From capture to send, 95th percentile."),
    Reading(
        "motion_latency",
        "/status/latency/motion",
        Kind.FLOAT,
        "ms",
        "The same for the motion in the picture, which reprojection takes from newer input frames.",
    ),
    Reading("motion_latency_p95", "/status/latency/motion/p95", Kind.FLOAT, "ms", "The same, 95th percentile."),
)
"""State, frame rates and latency."""

DROPS = (
    Reading("dropped", "/status/dropped", Kind.INT, "", "Frames dropped since the start."),
    *(
        Reading(f"dropped_{c}", f"/status/dropped/{c}", Kind.INT, "", f"Frames dropped since the start, cause {c}.")
        for c in DROP_CAUSES
    ),
)
"""Dropped frames, in total and by cause."""

NAMES = (
    Reading("given_up", "/status/omitted", Kind.TEXT, "", "What is left out because a tick is too short for it."),
    Reading("input", "/status/input", Kind.TEXT, "", "The source that is connected."),
    Reading("mask_input", "/status/mask/input", Kind.TEXT, "", "The second input for the matte that is connected."),
    Reading(
        "mask_background_input",
        "/status/mask/background/input",
        Kind.TEXT,
        "",
        "The second input behind the matte that is connected.",
    ),
    Reading("output", "/status/output", Kind.TEXT, "", "The outputs."),
    Reading(
        "outputs_failing", "/status/output/failing", Kind.TEXT, "", "The outputs that do not send now; else empty."
    ),
    Reading(
        "stretched",
        "/status/output/stretched",
        Kind.TEXT,
        "",
        "That the model's picture is stretched to the output's proportions, and what to do; else empty.",
    ),
    UNABLE,
    Reading("model", "/status/model", Kind.TEXT, "", "The model that is open."),
    Reading("model_size", "/status/model/size", Kind.TEXT, "", "Size of the pictures that it makes."),
    Reading("message", "/status/message", Kind.TEXT, "", "What is going on, in words for the artist."),
)
"""What is connected, and a message about it."""
