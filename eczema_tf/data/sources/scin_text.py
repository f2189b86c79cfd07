"""SCIN's self-reported flags as a few plain sentences. It is a template, not free text.

A flag is `YES` or blank, and blank is not "no": nothing is ever said about a blank. The only
negations are those that the person ticked ("no relevant symptoms"). Age and sex are left out: they
are columns of their own, and a text encoder gains nothing from them (docs/data.md).
"""

from collections.abc import Mapping

TEXTURES = {
    "textures_raised_or_bumpy": "raised or bumpy",
    "textures_flat": "flat",
    "textures_rough_or_flaky": "rough or flaky",
    "textures_fluid_filled": "filled with fluid",
}
BODY_PARTS = {
    "body_parts_head_or_neck": "head or neck",
    "body_parts_arm": "arm",
    "body_parts_palm": "palm",
    "body_parts_back_of_hand": "back of the hand",
    "body_parts_torso_front": "chest or belly",
    "body_parts_torso_back": "back",
    "body_parts_genitalia_or_groin": "genitals or groin",
    "body_parts_buttocks": "buttocks",
    "body_parts_leg": "leg",
    "body_parts_foot_top_or_side": "top or side of the foot",
    "body_parts_foot_sole": "sole of the foot",
    "body_parts_other": "another part of the body",
}
SYMPTOMS = {
    "condition_symptoms_bothersome_appearance": "looks bothersome",
    "condition_symptoms_bleeding": "bleeds",
    "condition_symptoms_increasing_size": "is growing",
    "condition_symptoms_darkening": "is getting darker",
    "condition_symptoms_itching": "itches",
    "condition_symptoms_burning": "burns",
    "condition_symptoms_pain": "hurts",
    "condition_symptoms_no_relevant_experience": "does not bother me",
}
OTHER_SYMPTOMS = {
    "other_symptoms_fever": "fever",
    "other_symptoms_chills": "chills",
    "other_symptoms_fatigue": "fatigue",
    "other_symptoms_joint_pain": "joint pain",
    "other_symptoms_mouth_sores": "mouth sores",
    "other_symptoms_shortness_of_breath": "shortness of breath",
}
FEELS_WELL = "other_symptoms_no_relevant_symptoms"
FLAG_COLUMNS = (*TEXTURES, *BODY_PARTS, *SYMPTOMS, *OTHER_SYMPTOMS, FEELS_WELL)
CATEGORIES = {
    "RASH": "I have a rash",
    "ACNE": "I have acne",
    "GROWTH_OR_MOLE": "I have a growth or mole",
    "PIGMENTARY_PROBLEM": "I have a pigment problem",
    "NAIL_PROBLEM": "I have a nail problem",
    "HAIR_LOSS": "I have hair loss",
    "OTHER_HAIR_PROBLEM": "I have a hair problem",
    "OTHER_ISSUE_DESCRIPTION": "I have another skin problem",
    "LOOKS_HEALTHY": "My skin looks healthy",
}
UNNAMED = "I have a skin problem"  # for those who report something, but not what it is
DURATIONS = {
    "ONE_DAY": "for one day",
    "LESS_THAN_ONE_WEEK": "for less than a week",
    "ONE_TO_FOUR_WEEKS": "for one to four weeks",
    "ONE_TO_THREE_MONTHS": "for one to three months",
    "THREE_TO_TWELVE_MONTHS": "for three to twelve months",
    "MORE_THAN_ONE_YEAR": "for more than one year",
    "MORE_THAN_FIVE_YEARS": "for more than five years",
    "SINCE_CHILDHOOD": "since childhood",
}


def describe_case(case: Mapping[str, str]) -> str:
    """Writes what a person reported in plain sentences.

    Args:
        case: A row of `scin_cases.csv`.

    Returns:
        For instance: "I have a rash for one day. It is flat. It is on my arm. It itches. Otherwise
        I feel well." It is "" if nothing was reported: no text is made up.
    """
    category = CATEGORIES.get(case["related_category"])
    duration = DURATIONS.get(case["condition_duration"])
    details = [
        _list_ticked("It is", TEXTURES, case),
        _list_ticked("It is on my", BODY_PARTS, case),
        _list_ticked("It", SYMPTOMS, case),
        _list_ticked("I also have", OTHER_SYMPTOMS, case),
        "Otherwise I feel well" if case[FEELS_WELL] == "YES" else "",
    ]
    if not any([category, duration, *details]):
        return ""
    opening = " ".join(filter(None, [category or UNNAMED, duration]))
    return " ".join(f"{sentence}." for sentence in [opening, *details] if sentence)


def _list_ticked(opening: str, phrases: Mapping[str, str], case: Mapping[str, str]) -> str:
    """Returns for instance `It itches, burns and hurts`; "" if no flag is ticked."""
    ticked = [phrase for column, phrase in phrases.items() if case[column] == "YES"]
    listed = " and ".join(filter(None, [", ".join(ticked[:-1]), *ticked[-1:]]))
    return f"{opening} {listed}" if listed else ""
