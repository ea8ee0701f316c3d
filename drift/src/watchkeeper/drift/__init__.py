"""The drift sidecar: it ships records to the ledger, watches for drift and starts training runs."""
