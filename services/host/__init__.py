"""Where models are loaded and run: in a process of their own, or in this one.

A model's thread and the event loop that answers calls would share one interpreter, of which only one at a time can go
on: a batch of short texts is some two hundred steps, and each of them waited until the loop let go. So what serves does
without torch, and models are next door, where several batches can run side by side. What stands between them is a
`Host`: it loads by the name of a function, and what it loaded takes and returns values that can be pickled. Both ends
are one program, and trust each other.
"""

from services.host.apart import Apart
from services.host.here import Here
from services.host.host import Host, Hosted, HostError

__all__ = ["Apart", "Here", "Host", "HostError", "Hosted"]
