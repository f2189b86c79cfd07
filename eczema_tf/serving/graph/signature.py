"""What the served signatures are called and take, for those who build, ask and check them.

No TensorFlow here: the web server reads requests by this table before a model is loaded.
"""

MODEL_NAME = "eczema"
SERVE, EXPLAIN = "serving_default", "explain"
SIGNATURES = (SERVE, EXPLAIN)
# name -> TensorFlow dtype; each has shape (batch,), and "" stands for none
INPUTS = {"image": "string", "text": "string"}
