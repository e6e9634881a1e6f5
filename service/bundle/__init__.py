"""The on-disk contract between training and serving, used by both sides. Imports only `service.errors`."""
