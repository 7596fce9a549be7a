"""The gateway's metrics: counters of calls, and gauges of its parts."""
