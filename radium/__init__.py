"""radium: split a running program at function boundaries; its segments run on another machine."""

__version__ = "0.1.0"
