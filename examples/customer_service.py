"""Answers a customer: what is it about (classification), what do we know of it (embedding), say it (generation).

    python examples/customer_service.py ["I was charged twice for one order"]

connection.py says where the gateway is. All three calls are sealed to the gateway.
"""

from __future__ import annotations

import sys

import connection
import grpc

from meshgate.v1 import classification_pb2 as cls
from meshgate.v1 import embedding_pb2 as emb
from meshgate.v1 import generation_pb2 as gen
from meshgate.v1.classification_pb2_grpc import ClassificationServiceStub
from meshgate.v1.embedding_pb2_grpc import EmbeddingServiceStub
from meshgate.v1.generation_pb2_grpc import GenerationServiceStub

INTENTS = {
    "billing": "a question about a charge, a payment or an invoice",
    "delivery": "a question about a parcel, its delivery or where it is",
    "account": "a question about signing in, a password or an account",
}
FAQ = {
    "I was charged twice": "A second charge is a hold of your bank and goes away by itself within three days.",
    "Where is my parcel?": "The link in our mail shows where your parcel is. It takes two to four days.",
    "My parcel is damaged": "Send us a photo within a week and we send a new one at once.",
    "I forgot my password": "Choose 'forgotten' where you sign in; we mail you a link that is good for an hour.",
}


def intent(channel: grpc.Channel, said: str) -> str:
    """Which of the intents it is, told by their descriptions alone."""
    request = cls.ClassifyRequest(model="zero-shot", inputs=[cls.ClassificationInput(text=said)])
    request.candidate_labels.labels.extend(cls.CandidateLabel(name=n, description=d) for n, d in INTENTS.items())
    return ClassificationServiceStub(channel).Classify(request, timeout=60).results[0].labels[0].label


def entry(channel: grpc.Channel, said: str) -> str:
    """The question of the FAQ that is most like it. Vectors have norm 1, so their product is their likeness."""
    reply = EmbeddingServiceStub(channel).Embed(emb.EmbedRequest(inputs=[said, *FAQ]), timeout=60)
    asked, *known = (embedding.floats.values for embedding in reply.embeddings)
    likeness = [sum(map(float.__mul__, asked, each)) for each in known]
    return list(FAQ)[likeness.index(max(likeness))]


def answer(channel: grpc.Channel, said: str, fact: str) -> None:
    """Says it in the words of the model, as they come."""
    system = f"You are a kind customer service agent. Answer in two sentences and use this fact: {fact}"
    turns = [gen.Message(role=gen.ROLE_SYSTEM, content=system), gen.Message(role=gen.ROLE_USER, content=said)]
    request = gen.GenerateRequest(conversation=gen.Conversation(messages=turns), max_output_tokens=60)
    request.sampling.temperature = 0
    for reply in GenerationServiceStub(channel).GenerateStream(gen.GenerateStreamRequest(request=request), timeout=120):
        connection.say("".join(delta.text for delta in reply.deltas), piece=True)


def main(channel: grpc.Channel) -> None:
    said = " ".join(sys.argv[1:]) or "There are two charges for the same order on my card!"
    question = entry(channel, said)
    connection.say(f"intent: {intent(channel, said)}\nfaq: {question}\nanswer: ")
    answer(channel, said, FAQ[question])
    connection.say("\n")


if __name__ == "__main__":
    connection.run(main, sealed=True)
