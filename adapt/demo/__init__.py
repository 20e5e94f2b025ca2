"""The Gradio demo: a page for one's own pictures, a tab a file. What it can do, the Python API can do."""
