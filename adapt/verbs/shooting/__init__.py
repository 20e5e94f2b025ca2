"""The parts of `adapt shots`: what is asked, which pictures are drawn, their features, one cell, and what all cells say together."""
