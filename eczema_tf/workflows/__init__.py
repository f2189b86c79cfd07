"""One module for each verb, and what they share: the run folder, inference, fitting, the audit."""
