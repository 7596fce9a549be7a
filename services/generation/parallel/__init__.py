"""One model on several devices, by tensor parallelism: each process (rank) holds a part of every layer.

All ranks run the same steps on the same inputs, each on its part, and add up what they get within each layer. Rank 0
alone listens, queues and chooses tokens; before each step it tells the others which one it is, in a few integers, and
they follow. How a model is split is transformers' own plan for it (`tp_plan`); who starts the ranks is torchrun.

A rank that is lost is the end of all: what the others hold is useless without it, and none of them can tell how far it
came. So the leader says so once, fails, and torchrun ends the rest.
"""

from services.generation.parallel.follower import follow
from services.generation.parallel.leader import Leader
from services.generation.parallel.ranks import Ranks
from services.generation.parallel.sharding import shard

__all__ = ["Leader", "Ranks", "follow", "shard"]
