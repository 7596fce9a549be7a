"""Whatever leans on names of grpcio that are not public. grpcio is pinned exactly for it."""
