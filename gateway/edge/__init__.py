"""How calls arrive, and what bounds them before their caller is known."""
