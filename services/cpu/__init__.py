"""How torch uses a CPU: threads, shares of the cores, memory."""
