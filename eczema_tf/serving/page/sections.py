"""An answer as HTML: probabilities, what was missing or wrong, what moved the answer, the photo under its heatmap, the words."""

from collections.abc import Mapping, Sequence
from typing import Any

from eczema_tf.serving.page.html import (
    escape,
    format_bar,
    format_percent,
    format_section,
    format_sign,
    format_signed,
    start_upper,
)
from eczema_tf.serving.page.pictures import list_colours, paint_heatmap, shrink_photo
from eczema_tf.serving.page.words import format_criteria, format_cues, format_words

TITLE = "<h2 id='answer-title' tabindex='-1'>{}</h2>"
OPACITY = 60  # percent, of the heatmap at first


def format_answer(
    answer: Mapping[str, Any],
    photo: bytes,
    text: str,
    faults: Sequence[str],
    photo_refused: bool = False,
) -> str:
    """Formats an answer.

    Args:
        answer: From `answering.answer_case`.
        photo: The upright JPEG that was asked about; b"" for none.
        text: As the user wrote it.
        faults: What was wrong before the model was asked.
        photo_refused: Whether a photo was given, but is not among what was asked about.

    Returns:
        HTML. Whatever the text holds is shown, not run.
    """
    used = answer["image_used"], answer["text_used"]
    faults = [*faults, *_read_status(answer["status"])]
    remark = _format_remark(used, photo_refused or bool(faults))
    parts = [
        TITLE.format("Answer"),
        format_notice(answer["notice"]),
        *map(format_fault, faults),
        remark,
    ]
    if any(used):
        parts += [_format_eczema(answer), _format_contributions(answer), _format_labels(answer)]
    if answer["image_used"]:
        parts.append(_format_heatmap(answer["heatmap"], photo))
    if answer["text_used"]:
        told = answer["text"]
        parts += [
            format_words(text, told["phrases"]),
            format_cues(told["cues"]),
            format_criteria(told["criteria"], text),
        ]
    return f"<div class='answer'>{''.join(parts)}</div>"


def format_failure(message: str, notice: str) -> str:
    """Formats what is shown where there is no answer."""
    return (
        "<div"
        f" class='answer'>{TITLE.format('No answer')}{format_notice(notice)}{format_fault(message)}</div>"
    )


def format_fault(message: str) -> str:
    """Formats one thing that is wrong; "" for none."""
    return (
        "<p class='fault'"
        f" role='alert'>{start_upper(escape(message))}{'' if message.endswith('.') else '.'}</p>"
        if message
        else ""
    )


def format_notice(notice: str) -> str:
    """Formats the notice that stands over every answer and under the page."""
    return f"<p class='notice' role='note'><strong>Not a diagnosis.</strong> {escape(notice)}</p>"


def _read_status(status: str) -> list[str]:
    return [] if status == "ok" else status.split("; ")


def _format_remark(used: tuple[bool, bool], photo_refused: bool) -> str:
    why = "The photo could not be used" if photo_refused else "There was no photo"
    remarks = {
        (True, True): "",
        (True, False): "There was no text: this answer is from the photo alone.",
        (False, True): f"{why}: this answer is from the text alone.",
        (False, False): "Nothing could be used, so there is no answer.",
    }
    return f"<p class='remark'>{remarks[used]}</p>" if remarks[used] else ""


def _format_eczema(answer: Mapping[str, Any]) -> str:
    both = answer["image_used"] and answer["text_used"]
    names = {
        "image": "From the photo",
        "text": "From the text",
        "fusion": "From both" if both else "Overall",
    }
    rows = "".join(_format_head(answer, modality, name) for modality, name in names.items())
    overall = answer["eczema"]["fusion"]
    said = f"probability of eczema{_versus(answer, 'fusion')}"
    lead = (
        f"<p class='lead'><strong class='figure'>{start_upper(format_percent(overall))}</strong>"
        f" <span>{said}</span></p>"
    )
    hint = (
        "<p class='soft'>The mark on a bar is the threshold, chosen on validation data: above it,"
        " the model would say eczema.</p>"
    )
    return format_section(
        "eczema", "Eczema?", lead, f"<table class='figures'><tbody>{rows}</tbody></table>", hint
    )


def _format_head(answer: Mapping[str, Any], modality: str, name: str) -> str:
    value = answer["eczema"][modality]
    if value is None:
        return f"<tr><th scope='row'>{name}</th><td class='soft' colspan='2'>none used</td></tr>"
    threshold = answer["thresholds"][modality] if answer["thresholds"] else None
    said = f"<span class='sr'>{_versus(answer, modality)}</span>"
    figure = f"<td class='number'>{format_percent(value)}{said}</td>"
    return f"<tr><th scope='row'>{name}</th><td>{format_bar(value, threshold)}</td>{figure}</tr>"


def _versus(answer: Mapping[str, Any], modality: str) -> str:
    if not answer["thresholds"]:
        return ""
    threshold = answer["thresholds"][modality]
    side = "above" if answer["eczema"][modality] >= threshold else "below"
    return f", {side} the threshold of {format_percent(threshold)}"


def _format_labels(answer: Mapping[str, Any]) -> str:
    """Severity and consistency side by side, each only if there is something to judge it by."""
    titles = {"severity": "How severe, if it is eczema", "consistency": "What the text speaks for"}
    parts = [
        _format_label(name, title, answer[name]) for name, title in titles.items() if answer[name]
    ]
    return f"<div class='pair'>{''.join(parts)}</div>"


def _format_label(name: str, title: str, probabilities: Mapping[str, float]) -> str:
    likeliest = max(probabilities, key=probabilities.__getitem__)
    rows = "".join(
        f"<tr{' class=likeliest' if label == likeliest else ''}><th"
        f" scope='row'>{escape(label)}</th><td>{format_bar(value)}</td><td"
        f" class='number'>{format_percent(value)}</td></tr>"
        for label, value in probabilities.items()
    )
    return format_section(name, title, f"<table class='figures'><tbody>{rows}</tbody></table>")


def _format_contributions(answer: Mapping[str, Any]) -> str:
    split = answer["contributions"]
    shares = {
        name: split[key]
        for key, name in (("image", "The photo"), ("text", "The text"))
        if answer[f"{key}_used"]
    }
    rows = {"Knowing neither": split["neither"], **shares, "Together": split["logit"]}
    longest = max(1e-9, *(abs(value) for value in rows.values()))
    table = "".join(
        f"<tr><th scope='row'>{name}</th><td>{_format_push(value / longest)}</td><td"
        f" class='number'>{format_signed(value)}</td></tr>"
        for name, value in rows.items()
    )
    unit = (
        "In log-odds: above 0 speaks for eczema (orange, to the right), below 0 against it (blue,"
        " to the left). Photo and text share what they do together equally (Shapley values)."
    )
    parts = (
        f"<p>{_say_contributions(shares)}</p>",
        f"<table class='figures'><tbody>{table}</tbody></table>",
        f"<p class='soft'>{unit}</p>",
    )
    return format_section("moved", "What moved the answer", *parts)


def _say_contributions(shares: Mapping[str, float]) -> str:
    ranked = sorted(shares.items(), key=lambda item: -abs(item[1]))
    said = [
        f"{name.lower()}, {'towards' if value > 0 else 'away from'} eczema"
        for name, value in ranked
    ]
    return f"Moved most by {'; then by '.join(said)}." if len(said) > 1 else f"Moved by {said[0]}."


def _format_push(share: float) -> str:
    """A bar from the middle to the right or to the left."""
    side, width = ("left", share) if share > 0 else ("right", -share)
    return (
        f"<span class='push' aria-hidden='true'><b class='{format_sign(share)}'"
        f" style='{side}:50%;width:{width / 2:.1%}'></b></span>"
    )


def _format_heatmap(heatmap: Mapping[str, Any], photo: bytes) -> str:
    where = _say_where(heatmap)
    picture = (
        f"<div class='heat' style='--opacity:{OPACITY / 100}'><img src='{shrink_photo(photo)}'"
        f" alt='The photo, upright. {where}'><img class='map'"
        f" src='{paint_heatmap(heatmap['grid'])}' alt=''></div>"
    )
    slider = (
        "<div class='slider'><label for='opacity'>Opacity of the heatmap</label><input"
        f" id='opacity' type='range' min='0' max='100' step='5' value='{OPACITY}'><output"
        f" for='opacity'>{OPACITY}%</output></div>"
    )
    colours = f"<i style='background:linear-gradient(90deg,{list_colours()})'></i>"
    legend = f"<p class='legend'><span>no evidence</span>{colours}<span>most</span></p>"
    figure = (
        f"<figure>{picture}<figcaption>{where} <span"
        " class='soft'>(Layer-CAM)</span></figcaption></figure>"
    )
    return format_section("heatmap", "Where in the photo", figure, legend, slider)


def _say_where(heatmap: Mapping[str, Any]) -> str:
    if not heatmap["evidence"]:
        return "No evidence for eczema was found in the photo."
    across, down = heatmap["peak"]["x"], heatmap["peak"]["y"]
    row = ("top", "middle", "bottom")[min(int(3 * down), 2)]
    column = ("left", "centre", "right")[min(int(3 * across), 2)]
    place = {"middle centre": "centre"}.get(f"{row} {column}", f"{row} {column}")
    return (
        f"The evidence for eczema is strongest at the {place} ({across:.0%} from the left,"
        f" {down:.0%} from the top)."
    )


STEPS = (
    "<ol class='steps'><li><strong>Show or tell</strong><span>A photo of the skin, a description of"
    " the symptoms, or both.</span></li><li><strong>Ask</strong><span>The answer shows what the"
    " photo says, what the text says, and what both say together.</span></li><li><strong>See"
    " why</strong><span>Where in the photo and in your own words the evidence"
    " lies.</span></li></ol>"
)
