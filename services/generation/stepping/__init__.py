"""The parts of a step: see services.generation.stepper, which calls them in turn. For the one thread that steps."""
