"""What the served signatures are called and take, for those who build, ask and check them.

No TensorFlow here: the web server reads requests by this table before a model is loaded.
"""

MODEL_NAME = "eczema"
SERVE, EXPLAIN = "serving_default", "explain"
SIGNATURES = (SERVE, EXPLAIN)
# name -> TensorFlow dtype; each has shape (batch,), and "" stands for none
INPUTS = {"image": "string", "text": "string"}
# The same with a further input, of models that are told clinical fields. A signature of its own,
# since TensorFlow Serving's REST interface wants every input of a signature in every row.
WITH_CLINICAL = {SERVE: "clinical", EXPLAIN: "explain_clinical"}
CLINICAL_INPUTS = {**INPUTS, "clinical": "string"}


def list_inputs(signature: str) -> dict[str, str]:
    """Lists a signature's inputs, as in `INPUTS`."""
    return CLINICAL_INPUTS if signature in WITH_CLINICAL.values() else INPUTS


def list_signatures(clinical: bool) -> tuple[str, ...]:
    """Lists the signatures of a model that is told clinical fields, or of one that is not."""
    return (*SIGNATURES, *WITH_CLINICAL.values()) if clinical else SIGNATURES
