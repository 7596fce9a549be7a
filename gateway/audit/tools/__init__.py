"""What operators do with a log: verify, search and follow it, and match content with its digests."""
