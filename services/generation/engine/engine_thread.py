"""The engine thread: one thread owns the model and steps the scheduler while there is work.

Other threads only put jobs into its inbox and set flags that it reads once a step. When a step fails for a reason that
is not one sequence's, the thread fails every waiting request, calls `on_death`, and ends. A thread that hangs in a step
can't do so; `give_up` does it for the thread.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from weakref import WeakValueDictionary

from meshgate.errors import MeshError
from services.common.drain_errors import draining, model_failed
from services.generation.engine.interface import Job, Listener, Ticket
from services.generation.scheduler.scheduler import Scheduler
from services.generation.scheduler.sequence import GenerationRequest

_log = logging.getLogger(__name__)

_LAST_STEP_SECONDS = 60.0
"""How long `stop` waits for the thread to end after the grace period: longer than the longest step."""


class EngineThread:
    """Implements Engine over a Scheduler. `start` before `submit`; `stop` leaves no thread."""

    def __init__(
        self,
        scheduler: Scheduler,
        on_death: Callable[[], object],
        enter_thread: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_death` and `enter_thread` run on the engine's thread."""
        self._scheduler = scheduler
        self._on_death = on_death
        self._enter_thread = enter_thread
        self._clock = clock
        self._inbox: deque[GenerationRequest] = deque()
        self._requests: WeakValueDictionary[int, GenerationRequest] = WeakValueDictionary()
        """By serial, each until nobody holds it. What the thread works on is its own, also where it hangs."""
        self._changed = threading.Condition()
        self._refusal: Callable[[], MeshError] | None = None
        self._abort = False
        self._hangs = False
        self._stepping_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="generation", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def submit(self, job: Job, listener: Listener) -> Ticket:
        """Queues a job. Thread-safe. Raises Unavailable when it stops (DRAINING) or has failed (MODEL_FAILED)."""
        request = GenerationRequest(job, listener, self._clock())
        with self._changed:
            if self._refusal is not None:
                raise self._refusal()
            self._requests[request.serial] = request
            self._inbox.append(request)
            self._changed.notify()
        return request

    def stepping(self) -> float:
        """Seconds since the step began that runs now; 0 between steps. Thread-safe."""
        since = self._stepping_since
        return 0.0 if since is None else self._clock() - since

    def give_up(self) -> None:
        """Gives up a thread that hangs: fails every request at once, refuses new ones, and lets `stop` not wait."""
        self._hangs = True
        self._refuse(model_failed)
        for reference in self._requests.valuerefs():  # a list, made at once whatever the thread does
            request = reference()
            if request is not None:
                request.fail(model_failed())

    @property
    def refusal(self) -> Callable[[], MeshError] | None:
        """Makes the error of new calls; None while calls are admitted."""
        return self._refusal

    async def stop(self, grace: float) -> None:
        """Refuses new jobs, lets the present ones finish for `grace` seconds, then fails them."""
        self._refuse(draining)
        await asyncio.to_thread(self._join, grace)

    def _join(self, grace: float) -> None:
        if self._thread.ident is None or self._hangs:
            return
        self._thread.join(grace)
        with self._changed:
            self._abort = True
            self._changed.notify()
        self._thread.join(_LAST_STEP_SECONDS)
        if self._thread.is_alive():
            _log.error("the model's thread did not end")

    def _refuse(self, error: Callable[[], MeshError]) -> None:
        with self._changed:
            self._refusal = self._refusal or error
            self._changed.notify()

    def _run(self) -> None:
        try:
            self._enter_thread()
            while self._take_in():
                self._stepping_since = self._clock()
                self._scheduler.step()
                self._stepping_since = None
        except Exception:
            _log.exception("the model's thread died")
            self._die()
        else:
            self._fail_all(draining())

    def _take_in(self) -> bool:
        """Waits for work and moves the inbox to the scheduler. False when it is time to end."""
        with self._changed:
            while self._scheduler.idle() and not self._inbox and self._refusal is None:
                self._changed.wait()
            if self._abort:
                return False
            while self._inbox:
                self._scheduler.add(self._inbox.popleft())
            return not self._scheduler.idle()

    def _die(self) -> None:
        self._refuse(model_failed)
        try:
            self._fail_all(model_failed())
        finally:
            self._on_death()

    def _fail_all(self, error: MeshError) -> None:
        with self._changed:
            while self._inbox:
                self._scheduler.add(self._inbox.popleft())
        self._scheduler.fail(error)
