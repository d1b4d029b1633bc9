"""What is tried under a tenant's context: statements, programs, calls, broken contexts, random workloads."""
