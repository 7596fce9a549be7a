"""The generator of docs/reference: each module here makes the pages of one kind, out of the code itself."""
