"""Files: read with a bound, written whole or not at all, and looked at for changes."""
