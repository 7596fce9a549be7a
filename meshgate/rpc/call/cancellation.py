"""Whether a CancelledError means that the caller left."""

from __future__ import annotations

import asyncio


def caller_left() -> bool:
    """Whether somebody cancelled the task that runs. Where nobody did, a CancelledError is of something that it waited
    for: whoever asked is still there and wants an answer.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
