"""Where models are loaded and run: in a process of their own, or in this one.

A model's thread and the event loop that answers calls would share one interpreter, of which only one at a time can go
on: a batch of short texts is some two hundred steps, and each of them waited until the loop let go. So what serves does
without torch, and models are next door, where several batches can run side by side. What stands between them is a
`Host`: it loads by the name of a function, and what it loaded takes and returns values that can be pickled. Both ends
are one program, and trust each other.
"""

from services.model_process.host import Host, Hosted, HostError
from services.model_process.inprocess_host import InprocessHost
from services.model_process.subprocess_host import SubprocessHost

__all__ = ["Host", "HostError", "Hosted", "InprocessHost", "SubprocessHost"]
