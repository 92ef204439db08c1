"""What each hospital brought to a round: Shapley values and leave-one-out, by aggregation and evaluation alone."""
