"""Writes numbers and measures in one form: 2.0 is 2, 1,5 is 1.5, 1,000 is 1000, and 1 cm is 10 mm."""

import re
from collections.abc import Sequence
from decimal import Decimal

SIGNS = "<>≤≥≈~±\u2212"
"""Signs that belong to the number after them."""
NUMBER = re.compile(rf"([{SIGNS}]*)(\d[\d.,]*|\.\d+)")
GROUPED = re.compile(r"[1-9]\d{0,2}(?:(,)\d{3})(?:\1\d{3})*(?:\.\d+)?|[1-9]\d{0,2}(?:(\.)\d{3})(?:\2\d{3})*,\d+")
"""Thousands separated by commas, or by full stops before a decimal comma."""
MANY_STOPS = re.compile(r"[1-9]\d{0,2}(?:\.\d{3}){2,}")

UNITS = {
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), ("mm", Decimal(1))),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), ("mm", Decimal(10))),
    **dict.fromkeys(("ug", "μg", "mcg", "microgram", "micrograms"), ("mg", Decimal("0.001"))),
    **dict.fromkeys(("mg", "milligram", "milligrams"), ("mg", Decimal(1))),
    **dict.fromkeys(("g", "gram", "grams"), ("mg", Decimal(1000))),
    **dict.fromkeys(("kg", "kilogram", "kilograms"), ("mg", Decimal(1_000_000))),
    **dict.fromkeys(("ml", "cc", "milliliter", "milliliters", "millilitre", "millilitres"), ("ml", Decimal(1))),
    **dict.fromkeys(("liter", "liters", "litre", "litres"), ("ml", Decimal(1000))),
}
"""The base unit of each unit, and the factor between the two."""
BETWEEN = ("x", "to")
"""Words between numbers that share a unit: 5 x 3 cm, 2 to 3 cm."""


def number_words(written: str) -> list[str]:
    """The numbers in a run of digits, stops and commas, each in one form; commas that separate a list are dropped.

    A comma before exactly three digits separates thousands; any other single comma is a decimal mark.
    """
    written = written.rstrip(".,")
    if GROUPED.fullmatch(written):
        mark = "." if written.rfind(",") > written.rfind(".") > -1 else ","
        return [_plain(written.replace(mark, "").replace(",", "."))]
    if MANY_STOPS.fullmatch(written):
        return [_plain(written.replace(".", ""))]
    if written.count(",") == 1 and "." not in written:
        return [_plain(written.replace(",", "."))]
    return [_plain(each) for each in written.split(",") if each]


def _plain(number: str) -> str:
    """A decimal number without redundant zeros; a number with several stops, such as a version, stays as it is."""
    if number.count(".") > 1:
        return number
    whole, _, part = number.partition(".")
    part = part.rstrip("0")
    return (whole.lstrip("0") or "0") + (f".{part}" if part else "")


def measured(found: Sequence[str]) -> list[str]:
    """Convert each number before a unit to its base unit: `1`, `cm` becomes `10mm`."""
    made = list(found)
    for place, word in enumerate(found):
        if word not in UNITS or not place or not _is_number(made[place - 1]):
            continue
        base, factor = UNITS[word]
        at = place - 1
        while at >= 0 and _is_number(made[at]):
            made[at] = _times(made[at], factor) + base
            at -= 2 if at >= 2 and made[at - 1] in BETWEEN else len(found)
        made[place] = ""
    return [word for word in made if word]


def _is_number(word: str) -> bool:
    return NUMBER.fullmatch(word) is not None and word.count(".") < 2


def _times(number: str, factor: Decimal) -> str:
    sign = number[: len(number) - len(number.lstrip(SIGNS))]
    return sign + _plain(f"{Decimal(number[len(sign) :]) * factor:f}")
