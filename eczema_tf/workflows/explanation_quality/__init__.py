"""Whether explanations can be trusted: faithfulness, sanity and stability over many cases."""
