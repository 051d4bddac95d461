"""The kernel interface: one function per call, no policy."""
