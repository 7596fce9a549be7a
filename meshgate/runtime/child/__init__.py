"""Child processes: started, restarted with backoff, logged, and ended with their parent."""
