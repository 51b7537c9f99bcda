"""Drawing tokens and turning them into text as they come."""
