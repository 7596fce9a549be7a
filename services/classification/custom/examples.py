"""Labelled texts as they come in: checked message by message, and held within bounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

from meshgate.errors import InvalidArgument
from meshgate.v1 import classification_pb2 as pb
from services.classification.config import CustomConfig
from services.classification.custom.store import NAME
from services.classification.custom.training_plan import TrainingPlan
from services.common import checks

_L2_LEAST = 1e-8
_L2_MOST = 10.0


class Examples:
    """What one call sends to be trained from."""

    def __init__(self, limits: CustomConfig, taken: Collection[str]) -> None:
        """`taken` are the names of the service's own models."""
        self.texts: list[str] = []
        self.size = 0
        """Bytes of them."""
        self._limits = limits
        self._taken = taken
        self._first: pb.TrainClassifierRequest | None = None
        self._labels: list[str] = []
        self._counts: Counter[str] = Counter()
        """Texts of each label: a call can bring each text in a message of its own."""

    @property
    def name(self) -> str:
        """The classifier's."""
        return self._first.model if self._first else ""

    @property
    def labels(self) -> tuple[str, ...]:
        """Each once, in the order of the alphabet."""
        return tuple(sorted(self._counts))

    @property
    def numbers(self) -> list[int]:
        """Of each text, the place of its label among `labels`."""
        places = {label: place for place, label in enumerate(self.labels)}
        return [places[label] for label in self._labels]

    @property
    def recipe(self) -> TrainingPlan:
        """What the options say."""
        options = self._first.options if self._first else pb.TrainOptions()
        return TrainingPlan(
            seed=options.seed,
            balanced=options.balanced if options.HasField("balanced") else True,
            held_out=options.held_out if options.HasField("held_out") else 0.2,
            l2=options.regularisation if options.HasField("regularisation") else None,
        )

    def add(self, message: pb.TrainClassifierRequest) -> int:
        """Takes a message's texts in and returns their bytes. Raises InvalidArgument."""
        if self._first is None:
            self._begin(message)
        else:
            self._same(message, self._first)
        sizes = [self._size(index, each) for index, each in enumerate(message.inputs, len(self.texts))]
        self._within("texts", len(self.texts) + len(sizes), self._limits.inputs)
        self._within("bytes of text", self.size + sum(sizes), self._limits.text_bytes)
        self.texts += [each.text for each in message.inputs]
        self._labels += [each.label for each in message.inputs]
        self._counts.update(each.label for each in message.inputs)
        self._within("labels", len(self._counts), self._limits.labels)
        self.size += sum(sizes)
        return sum(sizes)

    def check(self) -> None:
        """Once all is there. Raises InvalidArgument where it is too little."""
        if len(self._counts) < 2:
            raise InvalidArgument.of("inputs", "texts of at least two labels are required")
        for index in self._lonely():
            raise InvalidArgument.of(f"inputs[{index}].label", "at least two texts of each label are required")

    def _begin(self, first: pb.TrainClassifierRequest) -> None:
        if not NAME.fullmatch(first.model):
            raise InvalidArgument.of("model", "1 to 63 of a-z, 0-9, '.', '_' and '-', the first a letter or digit")
        if first.model in self._taken:
            raise InvalidArgument.of("model", "one of the service's own models has this name", reason="NAME_TAKEN")
        options = first.options
        if options.HasField("held_out"):
            checks.in_range("options.held_out", options.held_out, 0.05, 0.5)
        if options.HasField("regularisation"):
            checks.in_range("options.regularisation", options.regularisation, _L2_LEAST, _L2_MOST)
        self._first = pb.TrainClassifierRequest(model=first.model, options=options)

    def _same(self, message: pb.TrainClassifierRequest, first: pb.TrainClassifierRequest) -> None:
        if message.model not in ("", first.model):
            raise InvalidArgument.of("model", "can't change within a stream")
        if message.HasField("options") and message.options != first.options:
            raise InvalidArgument.of("options", "can't change within a stream")

    def _size(self, index: int, example: pb.LabelledInput) -> int:
        checks.size(f"inputs[{index}].text", example.text, 1, checks.TEXT_BYTES)
        checks.size(f"inputs[{index}].label", example.label, 1, checks.NAME_BYTES)
        return len(example.text.encode())

    def _within(self, what: str, number: int, most: int) -> None:
        if number > most:
            raise InvalidArgument.of("inputs", f"at most {most} {what} in one training", reason="TRAINING_TOO_LARGE")

    def _lonely(self) -> Iterator[int]:
        """The texts that are alone with their label."""
        return (index for index, label in enumerate(self._labels) if self._counts[label] < 2)
