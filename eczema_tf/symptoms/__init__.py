"""What a text says: symptom phrases, negation, whose symptoms they are, and related criteria."""
