"""A flow of another library as this project's bijections: one module for each library."""
