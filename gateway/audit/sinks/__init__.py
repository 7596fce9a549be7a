"""The sinks of records: the log on disk, a Redis stream, an OTLP collector, standard output; a queue and a thread for
each.
"""
