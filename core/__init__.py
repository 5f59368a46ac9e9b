"""Scaphoid's engine: reads, finds, classifies, explains and measures wrist radiographs.

Nothing in this package imports Streamlit, and importing it imports neither TensorFlow nor Keras.
"""

import os

__version__ = "0.1.0"

# TensorFlow reads this when it is first imported. Its start-up notes would bury the one line that tells a user which
# film could not be read; errors still come through.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
