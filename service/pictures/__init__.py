"""Answers as pictures: NumPy rasters, labels and PNG by Pillow. Knows no HTTP, and must not import matplotlib."""
