"""Sealed calls: the HPKE codec, a recipient's keys and their renewal, and a service as a recipient."""
