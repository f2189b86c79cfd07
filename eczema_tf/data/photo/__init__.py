"""Photos: how they are opened, inspected, preprocessed and augmented."""
