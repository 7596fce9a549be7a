"""The secure gateway: one file a stage; `pipeline.py` tells the story from top to bottom."""
