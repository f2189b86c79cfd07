"""A SavedModel with only some of its signatures, which loads in less time and memory.

TensorFlow makes Python objects of every node of every function, whether it is used or not. With the
quickstart's encoders, three quarters of 12,000 nodes belong to `explain`. This module does not
import Keras, because `predict` runs without it.
"""

from collections.abc import Collection

from tensorflow.core.framework.function_pb2 import FunctionDefLibrary
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from eczema_tf.model.graphs import keep_called

SIGNATURE_MAP = "signature_map"  # what TensorFlow calls the object that holds all signatures
EMPTY_OBJECT = "_generic_user_object"


def keep_signatures(saved: SavedModel, names: Collection[str]) -> SavedModel:
    """Removes the other signatures, and the functions that only they call.

    Args:
        saved: With one graph, as `tf.saved_model.save` writes it; changed in place.
        names: Of the signatures to keep; a name that is not there is ignored.
    """
    meta = saved.meta_graphs[0]
    objects = meta.object_graph_def
    for signatures in objects.nodes:
        if signatures.user_object.identifier != SIGNATURE_MAP:
            continue
        for child in [one for one in signatures.children if one.local_name not in names]:
            signatures.children.remove(child)
            left_out = objects.nodes[child.node_id]  # its number must stay taken
            del objects.concrete_functions[left_out.bare_concrete_function.concrete_function_name]
            left_out.Clear()
            left_out.user_object.identifier = EMPTY_OBJECT
    called = FunctionDefLibrary(function=keep_called(meta.graph_def, objects.concrete_functions))
    meta.graph_def.ClearField("library")
    meta.graph_def.MergeFrom(GraphDef(library=called))
    return saved
