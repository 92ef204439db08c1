"""Privacy of a federation: sums that hide their terms, noise, and what the noise is worth."""
