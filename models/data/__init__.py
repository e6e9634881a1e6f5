"""Rows that a flow is fitted to: files read, columns chosen and checked, data sets that come with the project."""
