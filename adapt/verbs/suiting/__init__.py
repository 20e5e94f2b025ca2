"""The parts of `adapt evaluate suite=…`: what is asked for, the sets, the models, and the asking; see `verbs/suite.py`."""
