"""The RSA keys that are strong enough for a trusted signature.

Besides size and exponent a key must not come from Infineon's RSALib, whose primes had a form from which the private key
can be computed (ROCA, CVE-2017-15361: Nemec, Sys, Svenda, Klinec, Matyas, "The Return of Coppersmith's Attack", CCS
2017, section 2). Such a modulus is a power of 65537 modulo every small prime; another one is so by chance once in
2**27.
"""

from __future__ import annotations

import math
from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

_BITS: Final = range(2048, 8192 + 1)
"""Shorter keys are too weak; longer keys only cost processor time."""
_EXPONENTS: Final = range(2**16 + 1, 2**64)
"""FIPS 186-5 requires more than 2**16. Beyond 64 bits OpenSSL does not support every key size."""
_GENERATOR: Final = 65537
_LARGEST_PRIME: Final = 167


def sound(public: RSAPublicKey) -> bool:
    """Whether the key may verify tokens."""
    numbers = public.public_numbers()
    exponent = numbers.e in _EXPONENTS and numbers.e % 2 == 1
    return public.key_size in _BITS and exponent and not _easy(numbers.n) and not _roca(numbers.n)


def _easy(modulus: int) -> bool:
    """Whether the modulus is easy to factor: a small prime divides it, or it is a square."""
    small = modulus % 2 == 0 or any(modulus % prime == 0 for prime in _POWERS)
    return small or math.isqrt(modulus) ** 2 == modulus


def _roca(modulus: int) -> bool:
    return all(modulus % prime in powers for prime, powers in _POWERS.items())


def _powers(prime: int) -> frozenset[int]:
    return frozenset(pow(_GENERATOR, exponent, prime) for exponent in range(prime - 1))


def _primes(largest: int) -> list[int]:
    return [n for n in range(3, largest + 1, 2) if all(n % d for d in range(3, int(n**0.5) + 1, 2))]


_POWERS: Final = {prime: _powers(prime) for prime in _primes(_LARGEST_PRIME)}
