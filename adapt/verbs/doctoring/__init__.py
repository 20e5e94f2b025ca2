"""The parts of `adapt doctor data`, which works on the rows of any source: what it is asked, what it counts, finds and draws."""
