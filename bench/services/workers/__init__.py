"""Models without a server: processes that do on order, one line each way, what a server would do for its callers."""
