"""What a text says: symptom phrases, negation, whose they are, and the criteria they speak to."""
