"""The parts of `adapt predict`: what is asked, the pictures, who answers, the shards of answers, and the files that are written."""
