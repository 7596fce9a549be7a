"""The seal stage: opens calls that are sealed to the gateway, relays the others, and remembers used envelopes."""
