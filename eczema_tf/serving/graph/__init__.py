"""The contents of the SavedModel: the guarded, frozen graph of all signatures."""
