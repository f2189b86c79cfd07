"""What is inside the SavedModel: the guarded, frozen graph of all signatures."""
