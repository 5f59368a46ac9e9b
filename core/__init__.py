"""Scaphoid's engine: reads, finds, classifies, explains and measures wrist radiographs.

Nothing in this package imports Streamlit, and importing it imports neither TensorFlow nor Keras.
"""

__version__ = "0.1.0"
