"""Whether a SavedModel does no more than compute: it is a program, and may come from anyone.

TensorFlow declares for each operation whether it is stateful. With few exceptions, everything that
reads or writes files, opens connections or calls Python is. So stateful operations are refused,
unless they are known to be harmless (TensorFlow, Using TensorFlow Securely: a model is code).

Keras is not used here, because `predict` does without it.
"""

from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.framework import op_def_registry

from eczema_tf.model.graphs import list_called, list_functions, list_nodes

# variables, tables and data in memory, control flow, chance, and programs compiled by XLA
_HARMLESS = """
    VarHandleOp ReadVariableOp AssignVariableOp AssignAddVariableOp AssignSubVariableOp
    DestroyResourceOp DisableCopyOnRead VarIsInitializedOp VariableShape ResourceGather
    ResourceGatherNd VariableV2 HashTableV2 AnonymousHashTable MutableHashTableV2
    MutableDenseHashTableV2 InitializeTableV2 LookupTableFindV2 LookupTableSizeV2
    LookupTableImportV2 LookupTableExportV2 LookupTableInsertV2 LookupTableRemoveV2
    StatefulPartitionedCall While If Case Assert CheckNumericsV2 CheckNumerics GuaranteeConst Empty
    TensorArrayV3 TensorArrayReadV3 TensorArrayWriteV3 TensorArrayGatherV3 TensorArrayScatterV3
    TensorArraySizeV3 TensorArrayCloseV3 TensorArrayConcatV3 TensorArraySplitV3
    TensorDataset TensorSliceDataset RangeDataset DatasetToSingleElement ReduceDataset
    AnonymousIteratorV2 AnonymousIteratorV3 MakeIterator IteratorGetNext IteratorGetNextAsOptional
    DeleteIterator RandomUniform RandomUniformInt RandomStandardNormal TruncatedNormal
    RandomShuffle RandomGamma RandomPoissonV2 Multinomial RngReadAndSkip RngSkip StatefulUniform
    StatefulUniformInt StatefulStandardNormalV2 StatefulTruncatedNormal StatelessRandomGetAlg
    SampleDistortedBoundingBox SampleDistortedBoundingBoxV2 RandomCrop XlaCallModule XlaLaunch
"""
# touch files, call Python, or run code in a string, although TensorFlow declares no state
_HARMFUL = """
    ReadFile MatchingFiles ImmutableConst InitializeTableFromTextFile PyFuncStateless CacheDataset
    SnapshotDataset SnapshotDatasetV2 SnapshotDatasetReader SnapshotNestedDatasetReader
    SnapshotChunkDataset DatasetFromGraph RegisterDataset RegisterDatasetV2 DebugIdentity
    DebugNanCount DebugNumericSummary CopyHost Copy ReaderRead ReaderReadUpTo
    GenerateVocabRemapping
"""
HARMLESS, HARMFUL = frozenset(_HARMLESS.split()), frozenset(_HARMFUL.split())
# only these read weights, in functions that nothing else calls
SAVING = frozenset({"SaveV2", "RestoreV2", "MergeV2Checkpoints", "ShardedFilename"})
SAVERS = ("__inference__traced_save", "__inference__traced_restore")


def find_harmful(saved: SavedModel) -> list[str]:
    """Lists the operations by which a SavedModel may do more than compute; empty if it has none."""
    found: set[str] = set()
    for meta in saved.meta_graphs:
        own = {function.signature.name for function in list_functions(meta.graph_def)}
        called = [*meta.object_graph_def.concrete_functions]  # by whoever loads it
        for name, nodes in list_nodes(meta.graph_def):
            operations = {node.op for node in nodes} - own
            saves = name == "" or name.startswith(SAVERS)
            found |= set(filter(_is_harmful, operations - SAVING if saves else operations))
            if name:
                called += [*list_called(nodes), *(node.op for node in nodes)]
        found |= {name for name in called if name.startswith(SAVERS)}
    return sorted(found)


def _is_harmful(operation: str) -> bool:
    known = op_def_registry.get(operation)
    return (
        known is None or operation in HARMFUL or (known.is_stateful and operation not in HARMLESS)
    )
