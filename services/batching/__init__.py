"""Dynamic batching for encoders: who is let in, whose turn it is, what runs together, and the threads that run it.

Theory (after text-embeddings-inference's queue). A call takes a place before any work is done for it, and its inputs
are tokenised before they are queued, so that their true cost is known. There is no wait timer: when the model is free,
it takes what waits. An idle server adds no delay, and while batches run the next gathers by itself.

    admission.py        who is let in, and who is too late
    tenant_capacity.py  how much may be in hand, and how much of it one tenant's
    fair_queue.py       whose turn it is: by tokens served, tenant by tenant
    batch_queue.py      two priorities, and the next batch
    select_batch.py     which inputs run together: like lengths, little padding
    latency_model.py    how long it will take
    error_kinds.py      what an error of the model says of its inputs and of itself
    worker.py           a thread of the model
    workers.py          all of them: batches side by side
    batcher.py          all of it put together
"""

from __future__ import annotations

from services.batching.batcher import Batcher, Permit
from services.batching.bounds import Bounds, Counts
from services.batching.error_kinds import ErrorClassifier, Fault
from services.batching.select_batch import select_batch
from services.batching.worker import Run

__all__ = ["Batcher", "Bounds", "Counts", "ErrorClassifier", "Fault", "Permit", "Run", "select_batch"]
