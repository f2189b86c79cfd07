"""Small pieces of HTML. Whatever a user wrote goes through `escape`; everything else here is ours."""

from html import escape


def format_section(name: str, title: str, *parts: str) -> str:
    """Returns a section of the answer; `name` becomes part of the ids that tests and links use."""
    return (
        f"<section class='card' aria-labelledby='{name}-title'><h3"
        f" id='{name}-title'>{escape(title)}</h3>{''.join(parts)}</section>"
    )


def format_percent(probability: float) -> str:
    """Returns whole percents; never the certainty of 0% or 100%."""
    if probability > 0.99:
        return "over 99%"
    return "under 1%" if probability < 0.01 else f"{probability:.0%}"


def format_bar(probability: float, threshold: float | None = None) -> str:
    """Returns a bar, with a mark where the threshold is. The figures stand beside it, so it is hidden from screen readers."""
    mark = "" if threshold is None else f"<i style='left:{threshold:.1%}'></i>"
    return (
        f"<span class='bar' aria-hidden='true'><b style='width:{probability:.1%}'></b>{mark}</span>"
    )


def format_signed(score: float) -> str:
    """Returns a score with its sign and two decimals; a real minus, and no sign for what is rounded to nothing."""
    text = f"{score:+.2f}"
    return "0.00" if text[1:] == "0.00" else text.replace("-", "\N{MINUS SIGN}")


def format_sign(score: float) -> str:
    """Returns "for" or "against", which is also the class in the style sheet."""
    return "for" if score > 0 else "against"


def start_upper(words: str) -> str:
    """Returns the words with a capital letter first, and the rest as it is."""
    return words[:1].upper() + words[1:]
