"""The subcommands of `meshgate`, a file each."""
