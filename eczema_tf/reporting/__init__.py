"""Everything that people read: tables, plots, reports, the model card, explanations."""
