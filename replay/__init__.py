"""The acceptor: mirrors of tracees, and the calls that run in them."""
