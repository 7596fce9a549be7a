"""The operators' commands of the `meshgate` CLI: token, audit, policy. None of them runs in a gateway."""
