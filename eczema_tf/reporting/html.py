"""The Jinja2 templates in `reporting/templates/`, and how they write probabilities and scores.

Whatever a user wrote is escaped, since autoescaping is on. No template contains a script, an inline
event handler or a `style` attribute, so a strict Content-Security-Policy can forbid all three.
"""

from typing import Any

import jinja2


def format_percent(probability: float) -> str:
    """Returns a whole percentage, but never the certainty of 0% or 100%."""
    if probability > 0.99:
        return "over 99%"
    return "under 1%" if probability < 0.01 else f"{probability:.0%}"


def format_signed(score: float) -> str:
    """Returns a score with a sign and two decimals; a true minus sign, and no sign for 0.00."""
    text = f"{score:+.2f}"
    return "0.00" if text[1:] == "0.00" else text.replace("-", "\N{MINUS SIGN}")


def format_sign(score: float) -> str:
    """Returns "for" or "against", which is also the style sheet's class."""
    return "for" if score > 0 else "against"


def start_upper(words: str) -> str:
    """Returns the words with a capital letter first, and the rest as it is."""
    return words[:1].upper() + words[1:]


TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("eczema_tf.reporting"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters |= {
    "percent": format_percent,
    "signed": format_signed,
    "sign": format_sign,
    "start_upper": start_upper,
}


def render_template(name: str, **values: Any) -> str:
    """Renders `templates/<name>.html.j2`."""
    return TEMPLATES.get_template(f"{name}.html.j2").render(**values)
