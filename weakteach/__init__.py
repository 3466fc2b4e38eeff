"""Can a weak language model teach a strong one? A distributed experiment sweeper on Ray."""

__version__ = "0.1.0"
