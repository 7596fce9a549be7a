"""The gRPC side of generation: servicer, validation, admission, errors and model cards."""
