"""The answer about one row: a signature's outputs with names on them, and as lines for people."""

from typing import Any

from eczema_tf.schema import CONSISTENCY, ECZEMA_HEADS, NOTICE, SEVERITY


def arrange_answer(outputs: dict[str, Any], thresholds: dict[str, Any] | None) -> dict[str, Any]:
    """Turns a signature's outputs into the answer that is printed."""
    used = {"image": outputs["image_used"], "text": outputs["text_used"]}
    eczema = {
        modality: outputs[head] if used.get(modality, any(used.values())) else None
        for modality, head in ECZEMA_HEADS.items()
    }
    return {
        "eczema": eczema,
        "thresholds": thresholds,
        "consistency": (
            dict(zip(CONSISTENCY, outputs["consistency"], strict=True)) if used["text"] else None
        ),
        "severity": (
            dict(zip(SEVERITY, outputs["severity"], strict=True)) if any(used.values()) else None
        ),
        "image_used": used["image"],
        "text_used": used["text"],
        "status": outputs["status"],
        "notice": NOTICE,
    }


def format_answer(answer: dict[str, Any]) -> str:
    """Formats an answer for people."""
    lines = []
    names = {
        "image": "from the photo",
        "text": "from the text",
        "fusion": "from both" if _both(answer) else "overall",
    }
    for modality, name in names.items():
        value = answer["eczema"][modality]
        lines.append(
            f"P(eczema) {name:<15}"
            f" {'not given' if value is None else f'{value:.2f}{_versus_threshold(answer, modality)}'}"
        )
    if answer["consistency"]:
        lines.append(f"the text suggests         {_ranked(answer['consistency'])}")
    if answer["severity"]:
        lines.append(f"severity, if eczema       {_ranked(answer['severity'])}")
    if answer["status"] != "ok":
        lines.append(f"note: {answer['status']}")
    return "\n".join([*lines, "", answer["notice"]])


def _both(answer: dict[str, Any]) -> bool:
    return answer["image_used"] and answer["text_used"]


def _versus_threshold(answer: dict[str, Any], modality: str) -> str:
    if not answer["thresholds"]:
        return ""
    threshold = answer["thresholds"][modality]
    side = "above" if answer["eczema"][modality] >= threshold else "below"
    return f"  ({side} the validation threshold {threshold:.2f})"


def _ranked(probabilities: dict[str, float]) -> str:
    ranked = sorted(probabilities.items(), key=lambda item: -item[1])
    return ", ".join(f"{label} {value:.2f}" for label, value in ranked)
