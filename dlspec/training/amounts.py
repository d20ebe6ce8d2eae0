"""How times and numbers are shown to people."""

from __future__ import annotations


def clock(seconds: float) -> str:
    """`0.4 s`, `12 s`, `1:05`, `2:01:05`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def shortened(value: float) -> str:
    """Three digits and a letter: `950`, `12.3k`, `1.20M`."""
    for letter in ("", "k", "M"):
        if value < 999.5:
            return f"{value:.0f}" if not letter else f"{value:.3g}{letter}"
        value /= 1000
    return f"{value:.3g}G"


def size(count: float) -> str:
    """Bytes: `950 B`, `12.3 kB`, `1.2 GB`."""
    short = shortened(count)
    return f"{short[:-1]} {short[-1]}B" if short[-1].isalpha() else f"{short} B"


def number(value: float) -> str:
    """Four decimals, or four digits where those would show nothing or too much."""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.4g}"
