"""Models as configuration: where they come from, which name means which, and how they change while they serve."""
