"""The writing half of each broker: a module for each, with the same interface (`ingest_gateway.writer.Log`)."""
