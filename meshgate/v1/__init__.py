"""Generated stubs of the public contract (protos/meshgate/v1). Never edited: `make proto` writes them."""
