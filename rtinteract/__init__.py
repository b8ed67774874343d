"""rtinteract: an embeddable real-time runtime for two-person motion."""

__version__ = "0.1.0"
