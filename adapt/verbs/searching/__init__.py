"""The parts of `adapt workbench`: what is asked, the candidates, what is encoded, the halving, and the recipe that is written."""
