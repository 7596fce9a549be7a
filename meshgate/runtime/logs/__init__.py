"""Process logs: JSON lines on standard error, and what libraries write there."""
