"""Define, fit and export flows, in torch. Of the server it imports only the on-disk contract, `service.bundle`."""
