"""The engine process: opens a session and runs the loop on it until it is told to stop or fails.

The only module of the running bridge that opens a model, and only inside `main`: importing it loads no torch. A
failure here ends this process alone; the supervisor reports it and starts another.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from multiprocessing.connection import Connection

from bridge.ipc.group_signals import leave_to_parent
from bridge.ipc.ring_ends import RingReader, RingWriter
from bridge.process.engine.auto_size import find_size
from bridge.process.engine.mask_rings import MaskEnds
from bridge.process.engine_session import EngineSession
from bridge.process.heartbeat import Heartbeat, Phase
from bridge.process.identity_session import IdentitySession
from bridge.process.loop import Loop
from bridge.process.mask.thread import MaskThread
from bridge.process.messages import Failed, Loading, Ready, SizeFound, Start
from bridge.process.parent import LogToParent, Parent
from bridge.process.priority import fine_timers, keep_objects
from engine.config import Config
from engine.errors import CaptureError, TidecastError


def main(
    start: Start,
    inbox: RingReader,
    outbox: RingWriter,
    connection: Connection,
    heartbeat: Heartbeat,
    masks: MaskEnds | None = None,
) -> None:
    """Main function of the (spawned) engine process. Returns when told to stop; a failure is reported and ends it."""
    parent = Parent(connection, start.controls)
    leave_to_parent(lambda: end(parent))
    fine_timers()
    logging.basicConfig(level=logging.INFO, handlers=[LogToParent(parent)], format="%(message)s")
    try:
        heartbeat.beat(Phase.LOADING)
        if start.trial is not None:
            parent.tell(measure(start, parent, heartbeat))
            return
        with open_session(start, parent, heartbeat) as session:
            heartbeat.beat(Phase.WAITING)  # first, so that an engine that is ready is no longer given the time to load
            if masks is not None:
                MaskThread(masks, parent.tell)
            spec = session.spec
            parent.tell(Ready(spec.name, spec.vocabulary, min(start.config.max_steps, spec.most_steps)))
            Loop(start, session, inbox, outbox, parent, heartbeat).serve()
    except CaptureError as error:
        parent.tell(Failed(str(error), captures=False))
    except TidecastError as error:
        parent.tell(Failed(str(error)))
    except MemoryError as error:
        parent.tell(Failed(f"The engine ran out of memory. {error}".strip()))
    except EOFError:
        parent.tell(Failed("The program that fed the engine is gone."))
    except BaseException as error:  # whatever it is, also a panic of a library in Rust, report it before the end
        logging.getLogger(__name__).exception("the engine failed")
        parent.tell(Failed(f"{type(error).__name__}: {error}"))
    else:
        return
    os._exit(1)  # threads of other libraries must not keep a failed engine alive


def measure(start: Start, parent: Parent, heartbeat: Heartbeat) -> SizeFound:
    """The size that this machine holds, of those that `start` names.

    Raises:
        TidecastError: if the model cannot be opened.
    """

    def say(text: str) -> None:
        heartbeat.beat(Phase.LOADING)
        parent.tell(Loading(text))

    return find_size(start, lambda sized: open_session(sized, parent, heartbeat), say)


def end(parent: Parent) -> None:
    """End this process because SIGTERM was meant for it alone."""
    parent.tell(Failed("The engine process was asked to end (SIGTERM)."))
    os._exit(1)


@contextlib.contextmanager
def open_session(start: Start, parent: Parent, heartbeat: Heartbeat) -> Iterator[EngineSession]:
    """The session that `start` asks for; closed at the end.

    Raises:
        ModelError: if the model cannot be opened.
    """
    if start.identity:
        yield IdentitySession()
        return

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads must not spin on the bridge's cores
    from engine.session import Session

    def progress(text: str) -> None:
        heartbeat.beat(Phase.LOADING)
        parent.tell(Loading(text))

    progress(f"opening {start.config.model}")
    with Session.open(leaving_a_core(start.config), progress=progress, defer_prompts=True) as session:
        keep_objects()
        yield session


def leaving_a_core(config: Config) -> Config:
    """The configuration, with one thread fewer than there are cores if the number of threads is not set."""
    if config.threads:
        return config
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return config.model_copy(update={"threads": max(1, cores - 1)})
