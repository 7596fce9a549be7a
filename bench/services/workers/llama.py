"""llama.cpp by its own interface, run in its environment: a batch of sequences that callers join and leave, as its
server has it, without a server around it.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from pathlib import Path
from typing import Any

import llama_cpp as llama
import numpy as np

from bench.services.workers import protocol

_CONTEXT = 512
"""Of each sequence, in tokens."""
_BATCH = 2048
_BFLOAT16 = 32
"""LLAMA_FTYPE_MOSTLY_BF16."""


def main() -> None:
    """Serves orders."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--bfloat16", type=Path, help="convert the weights to bfloat16 first, into this file")
    flags = parser.parse_args()
    llama.llama_backend_init()
    gguf = _converted(flags.gguf, flags.bfloat16, flags.threads) if flags.bfloat16 else flags.gguf
    model = llama.llama_model_load_from_file(str(gguf).encode(), llama.llama_model_default_params())
    if not model:
        raise SystemExit("the model can't be loaded")
    protocol.serve("llama", lambda order: _work(_Batch(model, order, flags.threads)))


def _converted(gguf: Path, into: Path, threads: int) -> Path:
    wanted = llama.llama_model_quantize_default_params()
    wanted.ftype, wanted.allow_requantize, wanted.nthread = _BFLOAT16, True, threads
    if llama.llama_model_quantize(str(gguf).encode(), str(into).encode(), ctypes.byref(wanted)):
        raise SystemExit("the weights can't be converted")
    return into


class _Sequence:
    """What one caller waits for."""

    def __init__(self, tokens: list[int]) -> None:
        self.waiting = tokens
        """Tokens that are not in the cache yet."""
        self.position = 0
        self.made = 0
        self.began = time.perf_counter()


class _Batch:
    """Sequences in work, by their caller's number."""

    def __init__(self, model: Any, order: protocol.Order, threads: int) -> None:
        self.order = order
        self.done = protocol.Done()
        self.running: dict[int, _Sequence] = {}
        self._vocabulary = llama.llama_model_get_vocab(model)
        self._size = llama.llama_vocab_n_tokens(self._vocabulary)
        self._context = llama.llama_init_from_model(model, _context(order.callers, threads))
        self._batch = llama.llama_batch_init(_BATCH, 0, 1)
        self._turns = protocol.Turns(order)

    def ask(self, caller: int) -> None:
        """Gives a caller's next prompt its place, if there is time for one."""
        llama.llama_memory_seq_rm(llama.llama_get_memory(self._context), caller, -1, -1)
        prompt = self._turns.next(caller)
        if prompt is None:
            self.running.pop(caller, None)
        else:
            self.running[caller] = _Sequence(self._tokens(prompt))

    def step(self) -> None:
        """Everybody's next token."""
        last = self._fill()
        if llama.llama_decode(self._context, self._batch):
            raise RuntimeError("llama_decode failed")
        for caller, place in last.items():
            self._take(caller, place)

    def close(self) -> protocol.Done:
        """Frees everything; what was done."""
        llama.llama_batch_free(self._batch)
        llama.llama_free(self._context)
        return self.done

    def _fill(self) -> dict[int, int]:
        """Puts what waits into the batch. Returns where each caller's last token is."""
        last = {}
        self._batch.n_tokens = 0
        for caller, sequence in self.running.items():
            for token in sequence.waiting:
                self._put(token, sequence.position, caller)
                sequence.position += 1
            last[caller] = self._batch.n_tokens - 1
            self._batch.logits[last[caller]] = True
        return last

    def _put(self, token: int, position: int, caller: int) -> None:
        batch, place = self._batch, self._batch.n_tokens
        batch.token[place], batch.pos[place], batch.logits[place] = token, position, False
        batch.n_seq_id[place], batch.seq_id[place][0] = 1, caller
        batch.n_tokens += 1

    def _take(self, caller: int, place: int) -> None:
        scores = np.ctypeslib.as_array(llama.llama_get_logits_ith(self._context, place), (self._size,))
        sequence = self.running[caller]
        sequence.waiting = [int(scores.argmax())]
        sequence.made += 1
        self.done.messages += 1
        if sequence.made == self.order.tokens:
            self.done.latencies.append(time.perf_counter() - sequence.began)
            self.ask(caller)

    def _tokens(self, prompt: str) -> list[int]:
        text = prompt.encode()
        found = (llama.llama_token * _CONTEXT)()
        count = llama.llama_tokenize(self._vocabulary, text, len(text), found, _CONTEXT, True, True)
        return list(found[:count])


def _context(sequences: int, threads: int) -> Any:
    wanted = llama.llama_context_default_params()
    wanted.n_ctx, wanted.n_batch, wanted.n_seq_max = sequences * _CONTEXT, _BATCH, sequences
    wanted.n_threads = wanted.n_threads_batch = threads
    return wanted


def _work(batch: _Batch) -> protocol.Done:
    for caller in range(batch.order.callers):
        batch.ask(caller)
    while batch.running:
        batch.step()
    return batch.close()


if __name__ == "__main__":
    main()
