"""Encoder-decoders (T5, Marian) behind the step loop's protocol: translation and summarising, batched as all else.

To the step loop a row is a prompt and what was made after it, as with a causal model. Here the prompt is the encoder's
input: reading it runs the encoder once and leaves, in the row, the keys and values that the decoder looks at it by.
What is made stands in the decoder's own cache, from its first place, whatever the input's length. So a row of `length`
positions whose input has n tokens holds n positions of the one cache and length - n, and those that every output
begins with, of the other.
"""

from services.generation.seq2seq.loading import bounded, wrap
from services.generation.seq2seq.model import Seq2SeqModel

__all__ = ["Seq2SeqModel", "bounded", "wrap"]
