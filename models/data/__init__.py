"""The rows that a flow is fitted to: readers of files, selection and checks, and the data sets that come along."""
