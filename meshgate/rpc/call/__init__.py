"""What concerns one call: its deadline, its cancellation, its compression, its slot."""
