"""Models, and what their modules do."""
