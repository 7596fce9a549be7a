"""Labelled texts as they come in: every bound, and what is made of them."""

from __future__ import annotations

import pytest

from meshgate.errors import InvalidArgument
from meshgate.v1 import classification_pb2 as pb
from services.classification.config import CustomConfig
from services.classification.custom.examples import Examples
from services.classification.custom.training_plan import TrainingPlan


def examples() -> Examples:
    return Examples(CustomConfig(inputs=11, labels=2, text_bytes=1024), frozenset({"colour"}))


def labelled(*pairs: tuple[str, str]) -> list[pb.LabelledInput]:
    return [pb.LabelledInput(text=text, label=label) for text, label in pairs]


FOUR = labelled(("a", "x"), ("b", "x"), ("c", "y"), ("d", "y"))


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([pb.TrainClassifierRequest(model="../x", inputs=FOUR)], "model"),
        ([pb.TrainClassifierRequest(inputs=FOUR)], "model"),
        ([pb.TrainClassifierRequest(model="colour", inputs=FOUR)], "model"),
        ([pb.TrainClassifierRequest(model="m", inputs=FOUR), pb.TrainClassifierRequest(model="n")], "model"),
        (
            [
                pb.TrainClassifierRequest(model="m", inputs=FOUR),
                pb.TrainClassifierRequest(options=pb.TrainOptions(seed=1)),
            ],
            "options",
        ),
        ([], "inputs"),
        ([pb.TrainClassifierRequest(model="m", inputs=FOUR[:2])], "inputs"),
        ([pb.TrainClassifierRequest(model="m", inputs=FOUR[:3])], "inputs[2].label"),
        ([pb.TrainClassifierRequest(model="m", inputs=labelled(("", "x")))], "inputs[0].text"),
        ([pb.TrainClassifierRequest(model="m", inputs=labelled(("a", "")))], "inputs[0].label"),
        ([pb.TrainClassifierRequest(model="m", inputs=FOUR * 3)], "inputs"),
        ([pb.TrainClassifierRequest(model="m", inputs=FOUR)] * 3, "inputs"),
        ([pb.TrainClassifierRequest(model="m", inputs=labelled(("a" * 1025, "x")))], "inputs"),
        ([pb.TrainClassifierRequest(model="m", inputs=labelled(*((c, c) for c in "abc")))], "inputs"),
        (
            [pb.TrainClassifierRequest(model="m", options=pb.TrainOptions(held_out=0.6), inputs=FOUR)],
            "options.held_out",
        ),
        (
            [pb.TrainClassifierRequest(model="m", options=pb.TrainOptions(regularisation=0), inputs=FOUR)],
            "options.regularisation",
        ),
        (
            [pb.TrainClassifierRequest(model="m", options=pb.TrainOptions(regularisation=float("nan")), inputs=FOUR)],
            "options.regularisation",
        ),
    ],
)
def test_what_is_out_of_range_is_named(messages: list[pb.TrainClassifierRequest], field: str) -> None:
    made = examples()
    with pytest.raises(InvalidArgument) as caught:
        for message in messages:
            made.add(message)
        made.check()
    assert caught.value.violations[0].field == field


def test_several_messages_are_one_training() -> None:
    made = examples()
    options = pb.TrainOptions(seed=3, balanced=False, held_out=0.25, regularisation=0.5)
    sizes = [
        made.add(pb.TrainClassifierRequest(model="m", options=options, inputs=labelled(("é", "y"), ("b", "x")))),
        made.add(pb.TrainClassifierRequest(inputs=labelled(("c", "x"), ("d", "y")))),
    ]
    made.check()
    assert (sizes, made.size) == ([3, 2], 5)
    assert (made.name, made.texts, made.labels, made.numbers) == ("m", ["é", "b", "c", "d"], ("x", "y"), [1, 0, 0, 1])
    assert made.recipe == TrainingPlan(seed=3, balanced=False, held_out=0.25, l2=0.5)


def test_what_is_left_out_is_the_default() -> None:
    made = examples()
    made.add(pb.TrainClassifierRequest(model="m"))
    assert made.recipe == TrainingPlan()
