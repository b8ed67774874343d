"""Errors a user can cause. Each message says what, what was expected, what was got, and what to do."""


class RtInteractError(ValueError):
    """Base of every error that a caller can mend; a ValueError, so generic handlers keep working."""


class ConfigError(RtInteractError):
    """A configuration value is out of range, unknown, or does not fit another."""


class SkeletonError(RtInteractError):
    """A skeleton is malformed, or its joints cannot be matched to another skeleton's."""


class MotionError(RtInteractError):
    """A motion file or array is unreadable, empty, cut short, or not finite."""


class CheckpointError(RtInteractError):
    """A model file is missing, damaged, from a newer format, or does not fit its configuration."""


class Cancelled(RuntimeError):
    """A progress callback asked the sampler to stop."""
