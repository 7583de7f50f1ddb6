"""Values of a report -> text that is safe inside HTML, and numbers as people read them."""

import html
import math
import numbers

import numpy as np

DASH = "–"
THIN = "\u202f"  # narrow no-break space, between a number and its unit

# Control characters would be invisible or illegal in HTML, lone surrogates cannot be encoded, and
# bidirectional overrides would reorder the page around them.
_UNSAFE = {c: chr(0x2400 + c) for c in range(32) if c not in (9, 10)}
_UNSAFE |= {0x7F: "\u2421"}
_UNSAFE |= dict.fromkeys([*range(0x80, 0xA0), *range(0xD800, 0xE000)], "\ufffd")
_UNSAFE |= dict.fromkeys([0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\ufffd")
_UNSAFE |= {0xFFFE: "\ufffd", 0xFFFF: "\ufffd"}


def label(value: object) -> str:
    """`value` as text, not escaped; None and floats that are not finite become a dash."""
    missing = value is None or (isinstance(value, float) and not math.isfinite(value))
    return DASH if missing else str(value)


def visible(text: str) -> str:
    """`text` that cannot steer a terminal or a page: only tabs and line feeds keep their effect.

    Control characters become pictures (␛), or U+FFFD as do bidirectional overrides.
    """
    return text.translate(_UNSAFE)


def escape(value: object) -> str:
    """`value` as text for an HTML body or a quoted attribute; None and NaN become a dash."""
    return html.escape(visible(label(value)), quote=True)


def breakable(value: object) -> str:
    """Escaped text that may also be broken after an underscore (for narrow column heads)."""
    return escape(value).replace("_", "_<wbr>")


def shorten(value: object, length: int) -> str:
    """`value` as text of at most `length` characters (not escaped), cut with an ellipsis."""
    text = label(value)
    return text if len(text) <= length else text[: length - 1] + "…"


def number(value: object) -> float | None:
    """`value` as a finite float, else None."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    value = float(value)
    return value if math.isfinite(value) else None


def mapping(value: object) -> dict:
    """`value` if it is a dict, else {}: sections may be absent."""
    return value if isinstance(value, dict) else {}


def sequence(value: object) -> list:
    """`value` as a list if it is a list, tuple or array, else []."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return list(value) if isinstance(value, list | tuple) else []


def percent(value: object, digits: int = 1) -> str:
    """A fraction as per cent; never rounded up to 100 % or down to 0 %."""
    x = number(value)
    if x is None:
        return DASH
    step = 10.0**-digits
    if 0 < x < 1 and 100 * x >= 100 - step / 2:
        return f">{100 - step:.{digits}f}{THIN}%"
    if 0 < x < 1 and 100 * x < step / 2:
        return f"<{step:.{digits}f}{THIN}%"
    return f"{100 * x:.{digits}f}{THIN}%"


def decimal(value: object, digits: int = 2) -> str:
    """A float with a fixed number of decimals; the true minus sign."""
    x = number(value)
    return DASH if x is None else f"{x:.{digits}f}".replace("-", "−")


def score(value: object) -> str:
    """An AUROC: three decimals, never rounded up to 1."""
    x = number(value)
    if x is not None and 0.9995 <= x < 1:
        return ">0.999"
    return decimal(x, 3)


def count(value: object) -> str:
    """An integer with thousands separators."""
    x = number(value)
    return DASH if x is None else f"{x:,.0f}"


def size(value: object) -> str:
    """A parameter count as 913 K, 0.91 M or 87.3 M, 1.2 B."""
    x = number(value)
    if x is None:
        return DASH
    for unit, scale in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if x >= scale * (0.5 if unit == "M" else 1):
            return f"{x / scale:.{2 if x < 10 * scale and unit == 'M' else 1}f}{THIN}{unit}"
    return f"{x:.0f}"


def duration(value: object) -> str:
    """Seconds as 4.2 s, 3 min 05 s or 2 h 10 min."""
    x = number(value)
    if x is None:
        return DASH
    if x < 59.95:
        return f"{x:.1f}{THIN}s"
    minutes, seconds = divmod(round(x), 60)
    if minutes < 60:
        return f"{minutes}{THIN}min {seconds:02d}{THIN}s"
    return f"{minutes // 60}{THIN}h {minutes % 60:02d}{THIN}min"


def plain(value: object) -> object:
    """`value` with numpy scalars and arrays as Python ones and non-finite floats as None.

    JSON has no NaN or infinity; strict readers refuse a file that holds them.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    return str(value)
