"""Names and inputs of the served signatures, for the code that builds, calls and checks them.

This module does not import TensorFlow: the web server needs this table before a model is loaded.
"""

MODEL_NAME = "eczema"
SERVE, EXPLAIN = "serving_default", "explain"
SIGNATURES = (SERVE, EXPLAIN)
# name -> TensorFlow dtype; each has shape (batch,), and "" stands for none
INPUTS = {"image": "string", "text": "string"}
# The same with one more input, for models that take clinical fields. These are separate signatures,
# since TensorFlow Serving's REST interface requires every input of a signature in every row.
WITH_CLINICAL = {SERVE: "clinical", EXPLAIN: "explain_clinical"}
CLINICAL_INPUTS = {**INPUTS, "clinical": "string"}


def list_inputs(signature: str) -> dict[str, str]:
    """Lists a signature's inputs, as in `INPUTS`."""
    return CLINICAL_INPUTS if signature in WITH_CLINICAL.values() else INPUTS


def list_signatures(clinical: bool) -> tuple[str, ...]:
    """Lists the signatures of a model, which depend on whether it takes clinical fields."""
    return (*SIGNATURES, *WITH_CLINICAL.values()) if clinical else SIGNATURES
