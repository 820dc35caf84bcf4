"""What users compose: sessions, streams, components, requirements and strategies."""
