"""How hospitals' updates become the next round's start: a file for each strategy, called what settings call it."""
