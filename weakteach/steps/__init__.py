"""The steps of studies, from pairs to gold rewards. An arm is an expression of such steps."""
