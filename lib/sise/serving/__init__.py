"""The services around the lake: Kafka, Redis."""
