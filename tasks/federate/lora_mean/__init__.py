"""Means of LoRA updates: the mean of the factors is not the mean of their products."""
