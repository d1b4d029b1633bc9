"""The probe: seeds tenants into a scratch copy, attacks it as the application role, and shrinks what it finds."""
