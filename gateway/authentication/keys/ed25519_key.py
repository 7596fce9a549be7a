"""The Ed25519 keys whose signatures may be trusted.

A key of small order has signatures that verify for any message, made without a private key: eight points, in fourteen
encodings. Libraries differ on the encodings that are not canonical (Chalkias, Garillot, Nikolaenko, "Taming the many
EdDSAs", SSR 2020), so those are refused too, as are encodings of no point at all. RFC 8032, section 5.1.3, decodes.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_PRIME: Final = 2**255 - 19
_D: Final = -121665 * pow(121666, -1, _PRIME) % _PRIME
_ORDER_8: Final = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
_SMALL: Final = frozenset({0, 1, _PRIME - 1, _ORDER_8, _PRIME - _ORDER_8})
"""The y of every point of small order, whatever the sign of its x."""


def sound(public: Ed25519PublicKey) -> bool:
    """Whether the key may verify tokens."""
    y = int.from_bytes(public.public_bytes_raw(), "little") & (2**255 - 1)
    return y < _PRIME and y not in _SMALL and _on_curve(y)


def _on_curve(y: int) -> bool:
    """Whether some x belongs to y: x² = (y² - 1) / (d y² + 1) must be a square (Euler's criterion)."""
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _PRIME) % _PRIME
    return pow(square, (_PRIME - 1) // 2, _PRIME) == 1
