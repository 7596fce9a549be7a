"""Answers a question from a small set of documents: finds the passage by embedding, and lets the model answer from it.

    python examples/question_answering.py ["How long did the Apollo 11 crew stay on the Moon?"]

connection.py says where the gateway is. The answer names the passages it was made from.
"""

from __future__ import annotations

import sys

import connection
import grpc

from meshgate.v1 import embedding_pb2 as emb
from meshgate.v1 import generation_pb2 as gen
from meshgate.v1.embedding_pb2_grpc import EmbeddingServiceStub
from meshgate.v1.generation_pb2_grpc import GenerationServiceStub

PASSAGES = {
    "apollo-11": "Apollo 11 landed on the Moon on 20 July 1969. Its crew was there for 21 hours and 36 minutes.",
    "apollo-13": "Apollo 13 turned back in April 1970 after an oxygen tank burst; its crew came home safely.",
    "eiffel": "The Eiffel Tower in Paris was finished in 1889 and is 330 metres high.",
    "photosynthesis": "Plants make sugar from carbon dioxide and water with the light of the sun.",
    "tcp": "TCP delivers bytes in order; it sends again what got lost and slows down when a network is full.",
    "honey": "Honey keeps for years because it holds little water and is acid.",
}
CITED = 2
"""How many passages the model is given."""


def passages(channel: grpc.Channel, question: str) -> list[str]:
    """The names of those that are most like the question, best first."""
    reply = EmbeddingServiceStub(channel).Embed(emb.EmbedRequest(inputs=[question, *PASSAGES.values()]), timeout=60)
    asked, *known = (embedding.floats.values for embedding in reply.embeddings)
    likeness = dict(zip(PASSAGES, (sum(map(float.__mul__, asked, each)) for each in known), strict=True))
    return sorted(PASSAGES, key=likeness.__getitem__, reverse=True)[:CITED]


def answer(channel: grpc.Channel, question: str, names: list[str]) -> None:
    """Streams the answer. Greedy, so that the same question has the same one."""
    known = "\n".join(PASSAGES[name] for name in names)
    asked = f"{known}\n\nAnswer in one sentence, from the text above alone: {question}"
    turns = gen.Conversation(messages=[gen.Message(role=gen.ROLE_USER, content=asked)])
    request = gen.GenerateRequest(conversation=turns, max_output_tokens=60)
    request.sampling.temperature = 0
    for reply in GenerationServiceStub(channel).GenerateStream(gen.GenerateStreamRequest(request=request), timeout=120):
        connection.say("".join(delta.text for delta in reply.deltas), piece=True)


def main(channel: grpc.Channel) -> None:
    question = " ".join(sys.argv[1:]) or "How long was the crew of Apollo 11 on the Moon?"
    names = passages(channel, question)
    answer(channel, question, names)
    connection.say(f"\nfrom: {', '.join(names)}\n")


if __name__ == "__main__":
    connection.run(main)
