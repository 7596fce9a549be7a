"""Dynamic batching for encoders: admission, fair queueing, batch selection and the worker threads.

Theory (after text-embeddings-inference's queue). A call takes a slot before any work is done for it. Its inputs are
tokenised before they are queued, so that their true cost is known. There is no wait timer: a free worker takes the
inputs that are queued. An idle server therefore adds no delay, and the next batch fills up while the present one runs.

    admission.py        admits or refuses calls: capacity and deadlines
    tenant_capacity.py  the bound on calls or tokens in progress, and each tenant's part of it
    fair_queue.py       the order of inputs: fair between tenants by tokens served
    batch_queue.py      two priorities, and the next batch
    select_batch.py     the inputs of one batch: similar lengths, little padding
    latency_model.py    the estimated duration of a batch
    error_kinds.py      the kinds of a model's errors
    worker.py           one thread that runs the model
    workers.py          all such threads: batches in parallel
    permit.py           the slot of one call
    batcher.py          the queue with all these parts
"""

from __future__ import annotations

from services.batching.batcher import Batcher
from services.batching.bounds import Bounds, Counts
from services.batching.error_kinds import ErrorClassifier, Fault
from services.batching.permit import Permit
from services.batching.select_batch import select_batch
from services.batching.worker import Run

__all__ = ["Batcher", "Bounds", "Counts", "ErrorClassifier", "Fault", "Permit", "Run", "select_batch"]
