"""The steps of this field, from pairs to gold rewards; an arm is an expression of them."""
