"""From an empty scratch copy to several tenants that each see rows of their own."""
