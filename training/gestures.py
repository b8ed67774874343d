"""Time curves of human gestures: minimum-jerk reaches, pulses, shakes, waves, filtered noise. Seconds in, arrays [T] out."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d, maximum_filter1d

FPS = 30.0


def minjerk(x):
    """Minimum-jerk profile of x, 0 below 0 and 1 above 1 (bell-shaped speed)."""
    x = np.clip(x, 0.0, 1.0)
    return x**3 * (10 - 15 * x + 6 * x**2)


def ramp(times, start, seconds):
    """0 before ``start``, 1 after ``start + seconds``, minimum-jerk between."""
    return minjerk((times - start) / max(seconds, 1e-3))


def pulse(times, start, rise, hold, fall):
    """Up in ``rise`` seconds from ``start``, held, down in ``fall``."""
    return ramp(times, start, rise) * (1 - ramp(times, start + rise + hold, fall))


def smooth(x, seconds, fps=FPS):
    """Gaussian smoothing along the first axis, ends extended."""
    return gaussian_filter1d(x, seconds * fps, axis=0, mode="nearest") if seconds > 0 else x


def envelope(x, seconds, fps=FPS):
    """A smooth curve never much below x [T]: the running maximum over +-``seconds``, then smoothed."""
    width = max(1, int(round(seconds * fps)))
    return gaussian_filter1d(maximum_filter1d(x, 2 * width + 1, mode="nearest"), width / 2.5, mode="nearest")


def lagged(x, times, delay, softness):
    """x [T, ...] as perceived: ``delay`` seconds late and smoothed over ``softness`` seconds."""
    shifted = np.stack([np.interp(times - delay, times, column) for column in x.reshape(len(x), -1).T], -1)
    return smooth(shifted.reshape(x.shape), softness)


def noise(rng, shape, seconds, fps=FPS):
    """Filtered noise [T, ...] of unit deviation and about ``seconds`` of correlation."""
    pad = int(4 * seconds * fps)
    white = rng.standard_normal((shape[0] + 2 * pad, *shape[1:]))
    soft = gaussian_filter1d(white, seconds * fps, axis=0)[pad:pad + shape[0]]
    # White noise through a gaussian of sigma s keeps 1 / sqrt(2 s sqrt(pi)) of its deviation.
    return soft * np.sqrt(2 * seconds * fps * np.sqrt(np.pi))


def breathing(rng, times):
    """A chest's slow swing [T], one at full breath, 12 to 20 breaths a minute."""
    rate = rng.uniform(0.2, 0.33)
    return np.sin(2 * np.pi * (rate * times + rng.uniform())) * rng.uniform(0.6, 1.2)


def oscillation(times, start, cycles, rate_hz, soften=0.15):
    """A sine of so many cycles from ``start``, faded in and out over ``soften`` seconds."""
    seconds = cycles / rate_hz
    window = ramp(times, start, soften) * (1 - ramp(times, start + seconds - soften, soften))
    return window * np.sin(2 * np.pi * rate_hz * (times - start))


def strike(times, start, out, back):
    """A punch's reach [T]: accelerating out in ``out`` seconds, back in ``back``; the peak lies at ``start + out``."""
    return ramp(times, start, out) * (1 - ramp(times, start + out, back))
