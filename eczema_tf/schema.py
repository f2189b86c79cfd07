"""The vocabulary shared by every part: manifest columns, labels, heads, batch keys and the notice.

Pure constants. Nothing here depends on any other module of the project.
"""

NOTICE = (
    "For education and research only. This is not a medical device and not a diagnosis: "
    "see a doctor about any skin problem that worries you."
)

NEVER_SEEN_SKIN = (
    "This model was trained only on built-in data, that is, photos and texts made by a program: it"
    " has never seen skin."
)

NEVER_SEEN_PHOTOS = (
    "The only photos that this model knows are built-in ones, made by a program: it has never seen"
    " skin."
)

# Labels, in the order of the logits.
CONSISTENCY = ("eczema", "other", "unclear")
SEVERITY = ("mild", "moderate", "severe")  # ordered: mild < moderate < severe
SPLITS = ("train", "val", "test")
MODALITIES = ("image", "text")

# Manifest columns (see docs/manifest.md). Any other column is kept and ignored.
REQUIRED_COLUMNS = ("example_id",)
MANIFEST_COLUMNS = (
    "example_id",
    "case_id",
    "group_id",
    "image_path",
    "text",
    "eczema",
    "consistency",
    "severity",
    "split",
    "skin_tone",
    "age_group",
    "sex",
    "source",
)

# What a clinical field (`data.clinical`) may be, besides a category.
NUMBER = "number"

# What the label `eczema` stands for. A data set without eczema can stand in for one with it; a
# column of its manifest then names the class that is told from the rest, such as "malignant".
POSITIVE_CLASS, ECZEMA = "positive_class", "eczema"

# Built-in data only: the exact P(eczema) given what was drawn, NaN where the modality is missing.
# `posterior_fusion` is always there. Their AUROC is the limit that no model can exceed.
POSTERIOR_COLUMNS = {
    "image": "posterior_image",
    "text": "posterior_text",
    "fusion": "posterior_fusion",
}
# Built-in data only: "known" or "new" where there is a text. New texts are in wordings that the
# other texts never use, and belong in the test split.
WORDINGS, NEW_WORDINGS = "wordings", "new"
# What the text says, as names separated by `;`, or "none"; "" where it is not known. These findings
# train detectors, which the text's other heads build on.
FINDINGS, NO_FINDINGS = "findings", "none"

# Who wrote the text: `TEMPLATE` if a program did, from flags or answers to a form, in which case
# equal texts mean equal flags; "" or anything else if a person did. `source` may say it, too.
TEXT_KIND, TEMPLATE = "text_kind", "template"

# Further columns whose cells are read like the manifest's own.
PREPARED = "dataset.json"  # next to a manifest that `prepare` wrote: from what, and how
OPTIONAL_COLUMNS = (FINDINGS, TEXT_KIND, "monk_skin_tone")

# Built-in data only: the expected grade, 0 (mild) to 2 (severe), if it is eczema. The limit is the
# best kappa that cut points on it can reach.
GRADE_COLUMNS = {
    "image": "posterior_grade_image",
    "text": "posterior_grade_text",
    "fusion": "posterior_grade_fusion",
}

# What is reported ("image", "text", "fusion") -> the model's head (a named layer, which is also an
# output of the model).
ECZEMA_HEADS = {"image": "eczema_image", "text": "eczema_text", "fusion": "eczema"}
SEVERITY_HEADS = {"image": "severity_image", "text": "severity_text", "fusion": "severity"}
HEADS = (*ECZEMA_HEADS.values(), "consistency", *SEVERITY_HEADS.values())
# What the model returns besides its heads, for deciding or abstaining (`model.decision`).
DISTANCES = {"image": "image_distance", "text": "text_distance"}
SIDE = "side"
OUTPUTS = (*HEADS, *DISTANCES.values(), SIDE)
DECISIONS = ("not eczema", "cannot tell", "eczema")  # in the order of the sides -1, 0 and 1

STATUS_OK = "ok"  # of a served row that needs no remark
READ_TO = "text: read to word "  # "... 64 of 180"
MOSTLY_UNKNOWN = "text: mostly words this model does not know"

# How much of a text is read: far more than the tokens that are kept. Bounds the work that one
# hostile text can cause.
MAX_TEXT_BYTES = 20_000

# One row of model input.
# float32 (height, width, 3) in [0, 255], or float32 (dimension,) if it is an embedding
IMAGE = "image"
IMAGE_PRESENT = "image_present"  # float32 (), 1 where there is a photo
TOKEN_IDS = "token_ids"  # int32 (tokens,)
PADDING_MASK = "padding_mask"  # int32 (tokens,), 1 where there is a token
TEXT_PRESENT = "text_present"  # float32 (), 1 where there is a text
CLINICAL = "clinical"  # float32 (figures,), only for models with clinical fields (`data.clinical`)
PRESENT = {"image": IMAGE_PRESENT, "text": TEXT_PRESENT}
MODEL_INPUTS = {  # name -> dtype
    IMAGE: "float32",
    IMAGE_PRESENT: "float32",
    TOKEN_IDS: "int32",
    PADDING_MASK: "int32",
    TEXT_PRESENT: "float32",
    CLINICAL: "float32",
}

# how a heatmap can be made (the first is what is served), and the method's name for people.
# Grad-CAM: Selvaraju et al. 2017; Grad-CAM++: Chattopadhay et al. 2018; Layer-CAM: Jiang et al.
# 2021; Score-CAM: Wang et al. 2020
HEATMAP_METHODS = {
    "evidence": "integrated gradients, refined by Layer-CAM",
    "layercam": "Layer-CAM",
    "gradcam": "Grad-CAM",
    "gradcam++": "Grad-CAM++",
    "scorecam": "Score-CAM",
}
