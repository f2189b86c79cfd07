"""Built-in data with known truth: tables, exact posteriors, photos and complaints."""
