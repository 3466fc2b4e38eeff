"""The steps of this field: from pairs to a gold reward. An arm is an expression of these."""
