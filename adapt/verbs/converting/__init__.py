"""Parts of `verbs/convert.py`."""
