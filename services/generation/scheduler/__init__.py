"""The parts of a step: see services.generation.scheduler.scheduler, which calls them in turn. For the one thread that
steps.
"""
