"""The public keys of issuers: parsed from a JWK Set, fetched over https or read from a file, and kept fresh."""
