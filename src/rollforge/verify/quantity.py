"""Numbers with units as people write them: `1,234.5 km`, `$12`, `3/4`, `50 %`, `-2e3 m/s`. Exact, and converted only within
a dimension. What an expression is worth is `expression`'s business."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_CHARS = 64
"""A longer text is no number."""

_NUMBER = re.compile(
    r"([-+−]?)\s?([$€£¥]?)\s?(\d{1,3}(?:,\d{3})+|\d+)?(\.\d+)?(?:\s?/\s?(\d+))?(?:[eE]([-+]?\d{1,3}))?\s?([^\d\s,.;:+*/=<>()&|-].*)?",
    re.ASCII | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Amount:
    value: Fraction
    unit: str = ""
    """As it is known, or as it was written; "" if there is none."""
    dimension: str = ""
    """Of a known unit: amounts of one dimension can be compared."""

    def same(self, other: Amount, tolerance: float = 0.0, relative: float = 0.0) -> bool:
        """Whether they are equal up to a difference of `tolerance`, in units of `other`, or of its `relative` part.

        A known unit (and a percent sign) may be missing on one side: the question says what is asked for.
        """
        value = self.value
        if self.unit != other.unit:
            if self.dimension and self.dimension == other.dimension:
                value = value * _UNITS[self.unit][1] / _UNITS[other.unit][1]
            elif (self.unit and other.unit) or not (self.dimension or other.dimension):
                return False
        allowed = max(Fraction(tolerance), Fraction(relative) * abs(other.value))
        return abs(value - other.value) <= allowed


def amount(text: str) -> Amount | None:
    """The number and the unit that a text consists of; None if it is anything else."""
    text = text.strip()
    if not text or len(text) > MAX_CHARS:
        return None
    found = _NUMBER.fullmatch(text)
    if found is None:
        return None
    sign, currency, whole, decimals, divisor, exponent, rest = found.groups()
    if not (whole or decimals) or (divisor is not None and not int(divisor)):
        return None
    value = Fraction((whole or "0").replace(",", "") + (decimals or "")) / int(divisor or 1)
    value *= Fraction(10) ** int(exponent or 0) * (1 if sign in ("", "+") else -1)
    unit = " ".join((rest or "").split()).rstrip(".")
    if currency:
        if unit:
            return None
        unit = currency
    known = _KNOWN.get(unit) or _KNOWN.get(unit.casefold())
    return Amount(value, known, _UNITS[known][0]) if known else Amount(value, unit)


# Name to dimension, size in the dimension's first unit, and further spellings.
_UNITS: dict[str, tuple[str, Fraction, tuple[str, ...]]] = {
    "m": ("length", Fraction(1), ("meter", "meters", "metre", "metres")),
    "mm": ("length", Fraction(1, 1000), ("millimeter", "millimeters", "millimetre", "millimetres")),
    "cm": ("length", Fraction(1, 100), ("centimeter", "centimeters", "centimetre", "centimetres")),
    "km": ("length", Fraction(1000), ("kilometer", "kilometers", "kilometre", "kilometres")),
    "in": ("length", Fraction(254, 10_000), ("inch", "inches")),
    "ft": ("length", Fraction(3048, 10_000), ("foot", "feet")),
    "mi": ("length", Fraction(1_609_344, 1000), ("mile", "miles")),
    "g": ("mass", Fraction(1), ("gram", "grams")),
    "mg": ("mass", Fraction(1, 1000), ("milligram", "milligrams")),
    "kg": ("mass", Fraction(1000), ("kilogram", "kilograms")),
    "t": ("mass", Fraction(1_000_000), ("tonne", "tonnes")),
    "lb": ("mass", Fraction(45_359_237, 100_000), ("lbs", "pound", "pounds")),
    "oz": ("mass", Fraction(45_359_237, 1_600_000), ("ounce", "ounces")),
    "s": ("time", Fraction(1), ("sec", "second", "seconds")),
    "ms": ("time", Fraction(1, 1000), ("millisecond", "milliseconds")),
    "min": ("time", Fraction(60), ("minute", "minutes", "mins")),
    "h": ("time", Fraction(3600), ("hr", "hour", "hours", "hrs")),
    "d": ("time", Fraction(86_400), ("day", "days")),
    "L": ("volume", Fraction(1), ("l", "liter", "liters", "litre", "litres")),
    "mL": ("volume", Fraction(1, 1000), ("ml", "milliliter", "milliliters", "millilitre", "millilitres")),
    "m²": ("area", Fraction(1), ("m^2", "square meters", "square metres")),
    "cm²": ("area", Fraction(1, 10_000), ("cm^2", "square centimeters", "square centimetres")),
    "km²": ("area", Fraction(1_000_000), ("km^2", "square kilometers", "square kilometres")),
    "m/s": ("speed", Fraction(1), ("meters per second", "metres per second")),
    "km/h": ("speed", Fraction(5, 18), ("kph", "kmh", "kilometers per hour", "kilometres per hour")),
    "mph": ("speed", Fraction(44_704, 100_000), ("miles per hour",)),
    "%": ("percent", Fraction(1), ("\\%", "percent", "per cent")),
    "°": ("angle", Fraction(1), ("deg", "degree", "degrees", "^\\circ", "^{\\circ}", "\\circ")),
    "°C": ("celsius", Fraction(1), ("C", "celsius", "degrees celsius", "°c")),
    "°F": ("fahrenheit", Fraction(1), ("F", "fahrenheit", "degrees fahrenheit", "°f")),
    "$": ("dollar", Fraction(1), ("USD", "usd", "dollar", "dollars")),
    "€": ("euro", Fraction(1), ("EUR", "eur", "euro", "euros")),
    "£": ("pound sterling", Fraction(1), ("GBP", "gbp")),
    "¥": ("yen", Fraction(1), ("JPY", "jpy", "yen")),
}
_KNOWN = {spelling: name for name, (_, _, others) in _UNITS.items() for spelling in (name, *others)}
