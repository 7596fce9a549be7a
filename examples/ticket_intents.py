"""Teaches the mesh eight kinds of support tickets from twenty sentences each, and sorts new tickets with it.

    python examples/ticket_intents.py [TICKET ...]

The classifier is your tenant's own, is trained in seconds and served at once; run again, there is a new version of it.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import connection
import grpc

from meshgate.v1 import classification_pb2 as pb
from meshgate.v1 import classification_pb2_grpc

NAME = "tickets"
SENTENCES = Path(__file__).with_suffix(".csv")
NEW = [
    "I still haven't got the money for the coat I sent back",
    "The app shuts down whenever I tap the camera",
    "Would you consider a plugin for Outlook?",
    "My package was dropped at the neighbour's",
]


def requests() -> Iterator[pb.TrainClassifierRequest]:
    """The name first, then the sentences. One message could carry them all; a stream carries any number."""
    yield pb.TrainClassifierRequest(model=NAME, options=pb.TrainOptions(seed=1))
    with SENTENCES.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield pb.TrainClassifierRequest(inputs=[pb.LabelledInput(text=row["text"], label=row["label"])])


def train(stub: classification_pb2_grpc.ClassificationServiceStub) -> None:
    """Says how good it is, which is what the last reply tells."""
    for reply in stub.TrainClassifier(requests(), timeout=300):
        if reply.HasField("report"):
            report = reply.report
            connection.say(f"version {report.version}: {report.accuracy:.0%} of held-out sentences are right\n")


def classify(stub: classification_pb2_grpc.ClassificationServiceStub, texts: list[str]) -> None:
    """Says what each text most likely is."""
    inputs = [pb.ClassificationInput(text=text) for text in texts]
    request = pb.ClassifyRequest(model=NAME, inputs=inputs, options=pb.ClassifyOptions(top_k=1))
    for text, result in zip(texts, stub.Classify(request, timeout=60).results, strict=True):
        connection.say(f"{result.labels[0].label:12} {result.labels[0].score:.2f}  {text}\n")


def main(channel: grpc.Channel) -> None:
    stub = classification_pb2_grpc.ClassificationServiceStub(channel)
    train(stub)
    classify(stub, sys.argv[1:] or NEW)


if __name__ == "__main__":
    connection.run(main)
