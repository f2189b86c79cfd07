"""Clinical fields: what is known of a case beside photo and text, such as age, sex and site."""
