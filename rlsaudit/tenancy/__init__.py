"""Tenancy: the class of every relation, the tenant key, the context and the application roles, inferred or declared."""
