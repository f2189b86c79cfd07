"""Clinical fields: what is known of a case besides photo and text, such as age, sex and site."""
