"""The contents of a TensorFlow graph as written: its nodes and its functions.

Keras is not used here, because `predict` does without it.
"""

from collections.abc import Iterable, Iterator
from operator import attrgetter

from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef


def list_nodes(graph: GraphDef) -> Iterator[tuple[str, list[NodeDef]]]:
    """Lists nodes with the name of the function that contains them, called or not.

    Those of the graph itself have "". Two functions of one name are both listed.
    """
    yield "", list(graph.node)
    for function in list_functions(graph):
        yield function.signature.name, list(function.node_def)


def list_functions(graph: GraphDef) -> list[FunctionDef]:
    """Lists the functions that a graph contains, called or not."""
    return list(attrgetter("library")(graph).function)


def keep_called(graph: GraphDef, names: Iterable[str]) -> list[FunctionDef]:
    """Returns those of a graph's functions that are named, and what they call in turn."""
    functions = {function.signature.name: function for function in list_functions(graph)}
    called: set[str] = set()
    found = list(names)
    while found:
        if (name := found.pop()) in functions.keys() - called:
            called.add(name)
            found += list_called(functions[name].node_def)
    return [functions[name] for name in sorted(called)]


def list_called(nodes: Iterable[NodeDef]) -> list[str]:
    """Lists the names of the functions that some nodes call; "" where an attribute has none."""
    attributes = [attribute for node in nodes for attribute in node.attr.values()]
    return [each.name for one in attributes for each in (one.func, *one.list.func)]
