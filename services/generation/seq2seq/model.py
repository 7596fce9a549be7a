"""An encoder-decoder on its device: see CausalModel, which it stands beside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from services.cpu.thread_tuner import ThreadTuner
from services.generation.model.device_memory import giving_back
from services.generation.seq2seq.cache import RowCache
from services.generation.seq2seq.decoders import DECODERS, Pass
from services.weights.load_weights import Weights


class Seq2SeqModel:
    """Rows 0 to rows-1 are for running sequences; `spare` is one more. One thread uses it at a time."""

    whole = True

    def __init__(
        self,
        module: Any,
        rows: int,
        places: int,
        begin: Sequence[int],
        end_tokens: frozenset[int],
        never: Sequence[int] = (),
        threads: int = 0,
    ) -> None:
        """At most `places` positions of input and as many of output. Outputs begin with the tokens `begin`, which are
        not told, and hold none of `never`.
        """
        self.rows = self.spare = rows
        self.source: int | None = places
        self.longest_output = places - len(begin) + 1
        self.context = places + self.longest_output
        self.vocabulary_size = int(module.config.vocab_size)
        self.dtype = str(module.dtype).removeprefix("torch.")
        self.device = str(module.device.type)
        self.end_tokens = end_tokens
        self.weights = Weights()
        self.module = module
        self._device = module.device
        self._threads = threads
        self._crew = ThreadTuner(threads if (self.device, self.dtype) == ("cpu", "bfloat16") else 0)
        self._encoder = module.get_encoder()
        with torch.inference_mode():
            self._decoder = DECODERS[module.config.model_type](module, places)
        self._begin = self._integers(begin)
        self._never = self._integers(never)
        self._cache = RowCache(rows, places, places)
        self._places = torch.arange(places, device=self._device)
        self._nothing = torch.empty(0, device=self._device)
        self._inputs = [0] * (rows + 1)
        """How long each row's input is."""

    def enter_thread(self) -> None:
        """As CausalModel's."""
        if self._threads:
            torch.set_num_threads(self._threads)

    def warm_up(self) -> None:
        """As CausalModel's."""
        self.prefill(self.spare, [0, 0], 0)
        for row in range(self.rows):
            self.copy(self.spare, row, 2)
        for rows in {1, self.rows}:
            self.decode([0] * rows, [2] * rows)

    @torch.inference_mode()
    def prefill(self, row: int, tokens: Sequence[int], start: int) -> Tensor:
        """Reads an input, all of it, into a row. Returns the scores of the first token of output, [vocabulary]."""
        if start:
            raise ValueError("an encoder reads its input in one piece")
        with self._crew.reading(len(tokens)):
            return self._read(row, tokens)

    def _read(self, row: int, tokens: Sequence[int]) -> Tensor:
        count, made = len(tokens), len(self._begin)
        encoded = self._encoder(input_ids=self._integers(tokens)[None]).last_hidden_state
        self._cache.read_into(row, count, made)
        self._inputs[row] = count
        positions = self._places[:made]
        own = positions <= positions[:, None]
        cross = self._places[:count] < count
        return self._scores(
            Pass(self._begin[None], positions[None], own[None, None], cross[None, None, None], encoded, self._cache)
        )[0]

    @torch.inference_mode()
    def decode(self, tokens: Sequence[int], lengths: Sequence[int]) -> Tensor:
        """Adds tokens[r] to row r, which holds lengths[r] positions, its input's among them. Returns scores, float32
        [rows, vocabulary].
        """
        inputs = self._inputs[: len(tokens)]
        made = [self._made(length, read) for length, read in zip(lengths, inputs, strict=True)]
        ids, positions, counts = self._integers([tokens, made, inputs])[:, :, None]
        self._cache.advance(positions[:, 0], max(inputs))
        own = self._places[: max(made) + 1] <= positions
        cross = self._places[: max(inputs)] < counts
        run = Pass(ids, positions, own[:, None, None], cross[:, None, None], self._nothing, self._cache)
        with self._crew.decoding(len(tokens)):
            return self._scores(run)

    @torch.inference_mode()
    def copy(self, source: int, target: int, length: int) -> None:
        """Copies `length` positions of a row over another: its input, and what was made of it up to there."""
        if not length:
            return  # nothing has been read into it yet
        read = self._inputs[target] = self._inputs[source]
        self._cache.copy(source, target, read, self._made(length, read))

    @torch.inference_mode()
    def wipe(self, row: int) -> None:
        """Forgets a row whose content is broken."""
        self._cache.wipe(row)

    @torch.inference_mode()
    def shrink(self, length: int) -> None:
        """As CausalModel's."""
        with giving_back(self._device):
            self._cache.shrink(length + len(self._begin))

    def _made(self, length: int, read: int) -> int:
        """How many places of the decoder's are taken in a row of `length` positions, `read` of them its input."""
        return len(self._begin) + length - read

    def _scores(self, run: Pass) -> Tensor:
        return self._decoder(run).float().index_fill(-1, self._never, -torch.inf)

    def _integers(self, values: Sequence[Any]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)
